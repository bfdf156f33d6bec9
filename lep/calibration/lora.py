"""LoRA on a model's layers, embedding and head trained whole beside it, head and embedding kept one where they are tied."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError
from lep.calibration.recipe import Recipe
from lep.model.layers import linear_layers, transformer_layers


def is_tied(model: Any) -> bool:
    """Return whether input embedding and output head are one matrix."""
    return bool(model.get_input_embeddings().weight is model.get_output_embeddings().weight)


def add_lora(model: Any, recipe: Recipe) -> Any:
    """Wrap a loaded model: LoRA on its layers, what is trained (and only that) in float32.

    Raises:
        DarumeruError: PEFT did not keep a tied head tied.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    tied = is_tied(model)
    names = {id(module): name for name, module in model.named_modules()}
    embedding, head = (names[id(m)] for m in (model.get_input_embeddings(), model.get_output_embeddings()))
    if tied:
        # Both names: PEFT recognises tied matrices by the usual name of either, and then wraps the embedding only.
        whole = [embedding, head] if recipe.train_embeddings or recipe.train_head else []
    else:
        whole = [*([embedding] if recipe.train_embeddings else []), *([head] if recipe.train_head else [])]
    config = LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=linear_layers(model, recipe.lora_layers),
        modules_to_save=whole or None,
        ensure_weight_tying=tied and bool(whole),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    with quiet():
        wrapped = get_peft_model(model, config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            # The values are replaced, not the parameter, so that what is tied stays one.
            parameter.data = parameter.data.float()
    check_tie(wrapped, tied)
    return wrapped


def shard_frozen(wrapped: Any, device: Any) -> None:
    """Cut up among the processes what a model that `add_lora` has wrapped does not train; what is trained stays whole in each."""
    from lep.model.sharding import shard

    trained = {parameter for parameter in wrapped.parameters() if parameter.requires_grad}
    shard(wrapped, transformer_layers(wrapped.get_base_model())[1], trained, device)


def load_adapter(wrapped: Any, adapter: Path) -> None:
    """Fill a model that `add_lora` has wrapped with the trained weights of a folder in PEFT's format.

    PEFT's own `from_pretrained` forgets the tie of models whose embedding has an unusual name (GPT-2's `wte`).

    Raises:
        DarumeruError: the folder does not hold exactly the weights that the model trains.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(adapter / "adapter_model.safetensors")
    wanted = get_peft_model_state_dict(wrapped)
    if wanted.keys() != weights.keys():
        differ = sorted(wanted.keys() ^ weights.keys())
        raise DarumeruError(f"{adapter} does not hold the weights that were trained ({', '.join(differ[:3])} …).")
    with quiet():
        set_peft_model_state_dict(wrapped, weights)


def check_tie(wrapped: Any, tied: bool) -> None:
    """See to it that a model with LoRA is tied as the model was.

    Raises:
        DarumeruError: it is not.
    """
    if is_tied(wrapped.get_base_model()) != tied:
        raise DarumeruError(
            f"PEFT did not keep head and embedding of {type(wrapped.get_base_model()).__name__} "
            f"{'one matrix' if tied else 'apart'}; such a model cannot be calibrated with this version of PEFT."
        )


def trained_parameters(wrapped: Any) -> Iterator[tuple[str, str]]:
    """Yield (name of a parameter in the plain model, how it is trained: `lora`, `embedding` or `head`) for all that change."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    base = wrapped.get_base_model()
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            yield f"{name}.weight", "lora"
        elif isinstance(module, ModulesToSaveWrapper):
            kind = "embedding" if module is base.get_input_embeddings() else "head"
            if kind == "embedding" or not is_tied(base):
                for inner, _ in module.original_module.named_parameters():
                    yield f"{name}.{inner}", kind


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the notices of libraries about what is done here on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
