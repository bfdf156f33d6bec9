"""The transformer layers of a causal language model, and the linear maps in them that LoRA goes on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from darumeru.errors import UserError


def transformer_layers(model: Any) -> tuple[str, Sequence[Any]]:
    """Return the name of the list that holds a model's transformer layers, and the layers.

    Args:
        model: a transformers model.

    Raises:
        UserError: the model keeps its layers where this does not find them.
    """
    import torch

    count = int(model.config.get_text_config().num_hidden_layers)
    decoder = model.get_decoder()
    prefix = next((name for name, module in model.named_modules() if module is decoder), "")
    for name, module in decoder.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return ".".join(part for part in (prefix, name) if part), list(module)
    raise UserError(
        f"{type(model).__name__} does not keep its {count} layers in one list. Train embeddings, head or new-rows, which "
        "need no layers."
    )


def linear_layers(model: Any, which: str, targets: Sequence[str] = ()) -> list[str]:
    """Return the names of the linear maps (attention and MLP) in a causal language model's transformer layers.

    Args:
        model: a transformers model.
        which: `all` layers; the `ends`: the first and the last; or numbers from 0, such as `0,1,29`.
        targets: last parts of the maps' names, such as `q_proj`; all of them where empty.

    Raises:
        UserError: there are no such layers, or no such maps in them.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    path, layers = transformer_layers(model)
    found = {
        f"{path}.{index}.{inner}": inner.rpartition(".")[2]
        for index in _numbers(which, len(layers))
        for inner, module in layers[index].named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    if not found:
        raise UserError(f"{type(model).__name__} has no linear maps in its layers that LoRA could be put on.")
    for target in targets:
        if target not in found.values():
            raise UserError(
                f"--lora-targets {target!r}: {type(model).__name__} has no such linear map in these layers; it has "
                f"{', '.join(sorted(set(found.values())))}."
            )
    return [name for name, last in found.items() if not targets or last in targets]


def _numbers(which: str, count: int) -> list[int]:
    if which == "all":
        return list(range(count))
    if which == "ends":
        return sorted({0, count - 1})
    if not re.fullmatch(r"\d+(,\d+)*", which) or max(chosen := sorted({*map(int, which.split(","))})) >= count:
        raise UserError(
            f"--lora-layers {which!r}: name all, ends, or layers by their numbers from 0 to {count - 1}, such as 0,{count - 1}."
        )
    return chosen
