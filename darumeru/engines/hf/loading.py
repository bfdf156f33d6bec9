"""Loading a model folder with transformers: the language model alone where it is part of a larger one, on its device."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from pathlib import Path
from typing import Any

from darumeru.engines.base import EngineOptions
from darumeru.errors import DarumeruError, UserError

_TEXT_KEYS = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}
"""What multimodal checkpoints call the parts of their language model, and what it is called alone."""


BITS = ("load_in_4bit", "load_in_8bit")
"""Arguments that have bitsandbytes quantise a model as it is loaded."""


def load_model(model: Path, options: EngineOptions) -> Any:
    """Return a model folder's language model, loaded onto its device with its adapter.

    Raises:
        UserError: there is no such device, transformers knows no language model of this type, the folder lacks weights of the
            model, or the adapter does not fit.
        DarumeruError: transformers cannot load the model.
    """
    import torch

    args = {k: v for k, v in options.model_args.items() if k not in ("batch_tokens", *BITS)}
    device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no GPU that PyTorch can use here. Use --device cpu.")
    args |= {
        "dtype": options.dtype if options.dtype == "auto" else getattr(torch, options.dtype),
        "trust_remote_code": options.trust_remote_code,
        "use_safetensors": True,
        # What does not fit is named below, by its first tensor.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    try:
        config = _config(model, options)
        if bits := {k: True for k in BITS if options.model_args.get(k)}:
            args["quantization_config"] = _in_bits(bits, args["dtype"], config)
        if device == "cuda" and (hasattr(config, "quantization_config") or "quantization_config" in args):
            # Quantised layers are made for the device that they are loaded on, and cannot be moved.
            args.setdefault("device_map", {"": device})
        loaded = None if options.adapter else _text_part(model, config, args)
        if loaded is None:
            loaded, info = model_class(config).from_pretrained(model, **args)
            check_filled(model, loaded, info)
        if options.adapter:
            add_adapter(loaded, options.adapter)
        return loaded if "device_map" in args else loaded.to(device)
    except torch.OutOfMemoryError as error:
        raise DarumeruError(f"The model does not fit on '{device}': {error}") from None
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise DarumeruError(f"transformers cannot load '{model}': {str(error).splitlines()[0]}") from error


def _in_bits(bits: dict[str, bool], dtype: Any, config: Any) -> Any:
    """Return bitsandbytes' settings; it computes in the model's type.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    import transformers

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{next(iter(bits))} needs bitsandbytes: pip install bitsandbytes.")
    computes = dtype if dtype != "auto" else config.dtype
    return transformers.BitsAndBytesConfig(**bits, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computes)


def _config(model: Path, options: EngineOptions) -> Any:
    import transformers

    return transformers.AutoConfig.from_pretrained(model, trust_remote_code=options.trust_remote_code)


def model_class(config: Any) -> Any:
    """Return the auto class that loads a language model with this configuration.

    Some that see images are mapped as such only (Mistral 3, Qwen2.5-VL, Qwen3-VL, GLM-4V).

    Raises:
        UserError: transformers has none.
    """
    import transformers

    if hasattr(config, "auto_map") or type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return transformers.AutoModelForCausalLM
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return transformers.AutoModelForImageTextToText
    raise UserError(
        f"transformers {transformers.__version__} has no model of type '{config.model_type}' that continues a text. "
        "Take a causal language model; to evaluate this one, try --engine vllm."
    )


def _text_part(model: Path, config: Any, args: dict[str, Any]) -> Any:
    """Return the language model of a multimodal one without its other parts; None where it cannot be loaded alone.

    It can where transformers has a class for its configuration and finds each of its weights in the checkpoint. Quantised
    checkpoints name layers of the whole model in their settings, and are loaded whole.
    """
    import transformers

    text = config.get_text_config(decoder=True)
    if text is config or hasattr(config, "quantization_config") or "quantization_config" in args:
        return None
    if type(text) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    text = deepcopy(text)
    text.dtype = text.dtype or config.dtype
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(model, config=text, key_mapping=_TEXT_KEYS, **args)
    # A head that is left over would have been tied to the embeddings instead.
    left = [key for key in info["unexpected_keys"] if "lm_head" in key or "language_model" in key]
    return None if info["missing_keys"] or info["mismatched_keys"] or left else loaded


def check_filled(folder: Path, model: Any, info: dict[str, Any]) -> None:
    """Refuse a model some of whose weights transformers filled at random, because it did not find them in the folder.

    transformers itself leaves out of this list what is tied to other weights and what a model can do without. Buffers are no
    weights: the model computes those that are not saved.

    Raises:
        UserError: a weight is missing, or has another shape than the configuration says.
    """
    if info["mismatched_keys"]:
        key, found, wanted = min(info["mismatched_keys"])
        raise UserError(
            f"Model folder '{folder}' does not fit its own config.json: '{key}' has the shape {list(found)}, and the model "
            f"needs {list(wanted)}. Take weights and configuration of one model."
        )
    if not info["missing_keys"]:
        return
    missing = sorted(info["missing_keys"] - {name for name, _ in model.named_buffers()})
    if not missing:
        return
    unused = sorted(info["unexpected_keys"])
    head = "lm_head" in missing[0]
    hint = (
        f"It holds '{unused[0]}', which the model does not know: give the weights their names back."
        if unused
        else "If head and embeddings are one, set tie_word_embeddings to true in config.json."
        if head
        else "Copy or download it again."
    )
    raise UserError(
        f"Model folder '{folder}' lacks {len(missing)} of the model's weights, the first is '{missing[0]}'; they would be "
        f"filled at random. {hint}"
    )


def add_adapter(model: Any, adapter: Path) -> None:
    """Apply a LoRA adapter to a model, beside its weights: merged into bfloat16 weights, most of it would be rounded away.

    Raises:
        UserError: PEFT is not installed, or the adapter belongs to another model, whole or in part.
    """
    if importlib.util.find_spec("peft") is None:
        raise UserError("A LoRA adapter on the hf engine needs PEFT: pip install 'darumeru[adapter]'.")
    try:
        info = model.load_adapter(str(adapter))
    except (RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"Adapter '{adapter}' does not fit this model; was it trained on another base? ({reason})"
        ) from None
    # Both lists, since a name that is misread is in both, and an adapter of a deeper model in one.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    filled = {id(p) for name, p in parameters.items() if name not in info.missing_keys}
    missing = sorted(key for key in info.missing_keys if id(parameters.get(key)) not in filled)  # tied ones are there
    if odd := sorted(info.unexpected_keys):
        reason = f"of its tensors {len(odd)} find no place, the first is '{odd[0]}'"
    elif missing:
        reason = f"it has no '{missing[0]}', which its adapter_config.json asks for"
    else:
        return
    raise UserError(
        f"Adapter '{adapter}' does not fit this model: {reason}. Name the base that it was trained on, or merge it into that "
        "with PEFT (merge_and_unload) and evaluate the merged folder."
    )
