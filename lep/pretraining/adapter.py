"""LoRA on the layers while embeddings or rows are trained: ``y = W x + (α/r) B A x`` (arXiv 2106.09685).

A checkpoint holds it merged, so that it is a plain model folder: ``W + (α/r) B A`` in float32 from the weight as it was
stored when this part of the schedule began, rounded once and without a bias (`lep.model.rounding`). A and B themselves are
among the float32 values beside it, from which a training resumes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.checkpoint import Checkpoint, read_blocks
from lep.model.embeddings import match_tensor
from lep.model.layers import linear_layers
from lep.model.rounding import generator_for, round_unbiased
from lep.model.shards import NewTensor, torch_dtype

if TYPE_CHECKING:
    from lep.pretraining.settings import PretrainSettings

_NAME = "default"


@dataclass(frozen=True)
class Lora:
    """Rank r, scale α, the layers and linear maps that get it (see `linear_layers`), and the seed of A and of rounding."""

    rank: int = 16
    alpha: float = 32.0
    layers: str = "all"
    targets: tuple[str, ...] = ()
    seed: int = 0

    @classmethod
    def of(cls, settings: PretrainSettings) -> Lora:
        """Return those of a training."""
        rank, alpha = settings.lora_rank, settings.lora_alpha
        return cls(
            rank, 2.0 * rank if alpha is None else alpha, settings.lora_layers, settings.lora_targets, settings.seed
        )


@dataclass(frozen=True)
class Adapter:
    """LoRA that was put on a model.

    Attributes:
        parameters: names of its matrices in the model.
        layers: PEFT's layer and the place of the original weight, by the tensor's name.
        seed: of rounding.
    """

    parameters: frozenset[str]
    layers: dict[str, tuple[Any, StoredTensor]]
    seed: int

    def tensors(self) -> dict[str, NewTensor]:
        """Return the merged weights, in the types of the folder that the model came from."""
        return {
            name: NewTensor(stored.dtype, stored.shape, partial(_merged, layer, stored, self.seed))
            for name, (layer, stored) in self.layers.items()
        }


def add_adapter(model: Any, lora: Lora, source: Checkpoint) -> Adapter:
    """Put LoRA on a frozen model, B at zero, A and B in float32.

    Args:
        model: a causal language model of transformers.
        lora: where and how large.
        source: the folder that it came from, which must stay while it is trained.

    Raises:
        UserError: there are no such layers or linear maps, or the folder stores one of them in another form.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = linear_layers(model, lora.layers, lora.targets)
    # PEFT takes names that are inside a longer list for the ends of names, and one regular expression for all of it.
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=names)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GPT-2's transposed weights, which PEFT corrects for
        torch.manual_seed(lora.seed)
        inject_adapter_in_model(config, model, _NAME)
    layers = {}
    for name in names:
        layer = model.get_submodule(name)
        # Autocast brings both into one type; PEFT would make the input float32 first.
        layer.cast_input_dtype_enabled = False
        weight = layer.get_base_layer().weight
        shape = tuple(getattr(weight, "quant_state", weight).shape)  # four bits are kept in another form
        stored = match_tensor(f"{name}.weight", source.tensors)
        if stored is None or stored.shape != shape:
            raise UserError(
                f"{source.folder.name} does not store {name}.weight in the form that transformers trains it in, so LoRA "
                "cannot be merged into it. Leave it out with --lora-targets, or train embeddings, head or new-rows."
            )
        layers[stored.name] = (layer, stored)
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for parameter in found.values():
        parameter.data = parameter.data.float()
    return Adapter(frozenset(found), layers, lora.seed)


def _merged(layer: Any, stored: StoredTensor, seed: int) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        change = layer.get_delta_weight(_NAME).cpu()
    draws = generator_for(stored.name, seed)
    for start, rows in read_blocks(stored):
        yield round_unbiased(rows.float() + change[start : start + len(rows)], torch_dtype(stored.dtype), draws)
