"""A model folder loaded with transformers: the language model, or a larger one that has it inside.

On a CPU, weights that are loaded in the type they are stored in stay in their files: the system reads them as they are used
and may forget them again, so that the memory that a model needs of its own is what is changed in it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darumeru.errors import UserError
from lep.model.shards import torch_dtype

if TYPE_CHECKING:
    import torch

    from lep.model.checkpoint import Checkpoint

Quantization = Literal["none", "8bit", "4bit"]
"""Of frozen linear maps: LLM.int8() (arXiv 2208.07339), NF4 with quantized constants (arXiv 2305.14314), by bitsandbytes."""


def load_model(
    folder: Path,
    dtype: str | torch.dtype = "auto",
    *,
    attention: str | None = None,
    quantize: Quantization = "none",
    device: Any = None,
) -> Any:
    """Return a model from a folder, in eval mode.

    Args:
        folder: a model folder.
        dtype: of the weights; `auto` is the one that the configuration names.
        attention: attention implementation; None is transformers' choice.
        quantize: of the linear maps in the layers; embedding and head stay as they are.
        device: where it is loaded; None is the CPU.

    Raises:
        UserError: transformers cannot load it, the folder lacks weights of the model, or bitsandbytes is wanted and not
            installed.
    """
    import transformers

    from darumeru.engines.hf.loading import check_filled, model_class

    own: dict[str, Any] = {}
    if quantize != "none":  # quantized layers are made for the device that they are loaded on, and cannot be moved
        own = {"quantization_config": _quantization(quantize, dtype), "device_map": {"": device or "cpu"}}
    try:
        model: Any
        model, info = model_class(transformers.AutoConfig.from_pretrained(folder)).from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            # What does not fit is named below, by its first tensor.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **own,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"transformers cannot load {folder}: {str(error).strip().splitlines()[0]}") from error
    check_filled(folder, model, info)
    if own:
        # transformers' Trainer refuses a quantized model without an adapter; rows and matrices are trained beside it.
        model._hf_peft_config_loaded = True
    return model.eval() if own or device is None else model.to(device).eval()


def _quantization(quantize: Quantization, dtype: Any) -> Any:
    import transformers

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"--quantize {quantize} needs bitsandbytes: pip install bitsandbytes.")
    if quantize == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    computes = None if dtype == "auto" else dtype
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=computes
    )


def load_exact(source: Checkpoint, values: Mapping[str, Callable[[], torch.Tensor]] | None = None) -> Any:
    """Return a model that computes in float32, with weights of the type that they are stored in.

    Memory of its own is what one module at a time needs in float32; see `in_float32`. Weights of more than one type are
    all loaded in float32.

    Args:
        source: the model.
        values: see `in_float32`.

    Raises:
        UserError: transformers cannot load it.
    """
    import torch

    types = {t.dtype for t in source.tensors.values() if t.dtype in ("F64", "F32", "F16", "BF16")}
    model = load_model(source.folder, torch_dtype(types.pop()) if len(types) == 1 else torch.float32)
    in_float32(model, values)
    return model


def in_float32(model: Any, values: Mapping[str, Callable[[], torch.Tensor]] | None = None) -> None:
    """Have each module of a model compute in float32: its own weights are brought there while it is called.

    Args:
        model: a model, changed; gradients do not go through it any more.
        values: weights that stand in for those of these names, made each time when they are used.
    """
    import torch

    made = {id(model.get_parameter(name)): make for name, make in (values or {}).items()}

    def enter(module: Any, _: Any) -> None:
        module.stored = {name: p.data for name, p in module._parameters.items() if p is not None}
        for parameter in module._parameters.values():
            if parameter is not None:
                make = made.get(id(parameter))
                parameter.data = parameter.data.to(torch.float32) if make is None else make()

    def leave(module: Any, _: Any, output: Any) -> None:
        for name, data in module.__dict__.pop("stored").items():
            module._parameters[name].data = data

    for module in model.modules():
        if any(p is not None and (p.dtype != torch.float32 or id(p) in made) for p in module._parameters.values()):
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, always_call=True)
