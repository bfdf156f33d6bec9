"""Loading a model into vLLM: its share of a GPU's memory, its data type, its adapter, and what vLLM says where it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import read_json
from darumeru.weights import loaded, read_header, weight_files

GIB = 1 << 30

USUAL_SHARE = 0.92
"""vLLM's own share of a GPU that is free."""

LEFT_FREE = GIB // 2
"""Bytes that vLLM takes beside its share: libraries' contexts, captured graphs."""

LEAST_BESIDE_WEIGHTS = 0.1
"""What a model needs beside its weights at least, as a share of them: activations, and a cache for some prompts."""

_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
"""Of a number in a type that can be asked for."""

_FLOATS = ("F64", "F32", "F16", "BF16")
"""What is brought into that type as it is loaded, as safetensors calls it."""

_MEASURE = (
    "import json, torch; print(json.dumps([torch.cuda.mem_get_info(i) for i in range(torch.cuda.device_count())]))"
)


def is_cpu_build() -> bool:
    """Return whether the installed vLLM is the one for CPUs, which is a distribution of its own (on macOS the only one)."""
    try:
        return sys.platform == "darwin" or "cpu" in version("vllm")
    except PackageNotFoundError:
        return True


def hide_llvmlite() -> None:
    """Give llvmlite's wrapper of its library an empty `__dict__`.

    It takes any name for a function of the library, this one too, and vLLM's build for CPUs (0.32) reads it of all that is
    imported when it loads a model: it fails where numba has been used, which it uses itself to speculate.
    """
    found = getattr(sys.modules.get("llvmlite.binding.ffi"), "lib", None)
    functions = getattr(found, "_fntab", None)
    if isinstance(functions, dict):
        functions["__dict__"] = {}


def gpu_memory(count: int) -> list[tuple[int, int]]:
    """Return the free and all bytes of the first GPUs."""
    import torch

    if count == 1:
        return [torch.cuda.mem_get_info(0)]
    # A process that has used a GPU cannot fork workers for the others: another one looks.
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True)
    return [(free, total) for free, total in json.loads(done.stdout)][:count]


def memory_share(gpus: Sequence[tuple[int, int]], weights: int) -> float:
    """Return the share of each GPU's memory that vLLM may take, out of what is free.

    Args:
        gpus: free and all bytes of each GPU that holds a part of the model.
        weights: bytes of the model's weights.

    Raises:
        UserError: what is free does not hold the model.
    """
    free, total = min(gpus, key=lambda pair: pair[0] / pair[1])
    share = min(USUAL_SHARE, int(100 * (free - LEFT_FREE) / total) / 100)
    needed = weights * (1 + LEAST_BESIDE_WEIGHTS) / len(gpus)
    if share * total < needed:
        raise UserError(
            f"The model needs {needed / GIB:.1f} GiB of the GPU's memory (weights {weights / GIB:.1f} GiB"
            f"{f' on {len(gpus)} GPUs' if len(gpus) > 1 else ''}), and {free / GIB:.1f} of {total / GIB:.1f} GiB are free. "
            "End what else runs there, split the model (--model-args tensor_parallel_size=N), or take another device."
        )
    return share


def weight_bytes(model: Path, dtype: str = "auto") -> int:
    """Return the size of a folder's weights as they are loaded.

    Args:
        model: the folder.
        dtype: what it is computed in.
    """
    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    # A quantised model's layers stay as they are.
    each = None if config.get("quantization_config") else _BYTES.get(dtype if dtype != "auto" else _stated(config))
    tensors = [tensor for file in loaded(weight_files(model)) for tensor in read_header(file)[0].values()]
    return sum(t.values * each if each and t.dtype in _FLOATS else t.nbytes for t in tensors)


def data_type(model: Path, asked: str) -> str:
    """Return the type to compute in: for `auto` float32 where the weights are, which vLLM alone would make 16 bits.

    transformers computes in the type of the checkpoint, and both engines say the same.
    """
    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    if asked != "auto" or config.get("quantization_config"):
        return asked
    return "float32" if (_stated(config) or _first_type(model)) in ("float32", "F32") else asked


def _stated(config: Mapping[str, Any]) -> str:
    """Return the type that a configuration names; empty where it names none."""
    inner = config.get("text_config") or {}
    return next((str(c[key]) for c in (config, inner) for key in ("dtype", "torch_dtype") if c.get(key)), "")


def _first_type(model: Path) -> str | None:
    """Return the type of a folder's first tensor, as safetensors calls it."""
    from safetensors import safe_open

    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            return str(next(tensors.get_slice(name).get_dtype() for name in tensors.keys()))  # noqa: SIM118
    return None


def is_multimodal(model: Path) -> bool:
    """Return whether a model folder holds a language model inside one that sees or hears."""
    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    return "text_config" in config and any(key in config for key in ("vision_config", "audio_config"))


def own_words(error: BaseException) -> str:
    """Return what vLLM says of an error: pydantic puts a count of errors before it and addresses behind it."""
    errors = getattr(error, "errors", None)
    text = str(errors()[0]["msg"]) if callable(errors) else str(error)
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].removeprefix("Value error, ") if lines else type(error).__name__


# -- adapters ---------------------------------------------------------------------------------------------------------


def check_adapter(model: Path, adapter: Path) -> None:
    """Hold an adapter's shapes against the model's: vLLM 0.32 loads one for another base without a word.

    Of a quantised layer (GPTQ, AWQ, bitsandbytes, FP8) the stored shapes say nothing of its inputs: it has to be there.

    Raises:
        UserError: a matrix of the adapter does not fit the model's.
    """
    modules = _tensors(model)
    for name, shape in ((n, s) for tensors in _tensors(adapter).values() for n, s in tensors.items()):
        module, found, _ = name.removeprefix("base_model.model.").partition(".lora_A.")
        if not found:
            continue
        base = modules.get(module, {})
        weight = base.get(f"{module}.weight") if set(base) <= {f"{module}.weight", f"{module}.bias"} else None
        if not base or (weight is not None and shape[-1] != weight[-1]):
            reason = f"{module} takes {shape[-1]} inputs there, {weight[-1] if weight else 'and is not'} here"
            raise UserError(f"Adapter '{adapter}' does not fit this model; was it trained on another base? ({reason})")


def _tensors(folder: Path) -> Mapping[str, dict[str, list[int]]]:
    """Return the shapes of a folder's tensors by module and name."""
    from safetensors import safe_open

    found: dict[str, dict[str, list[int]]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                # bitsandbytes keeps its scales behind the weight's name: q_proj.weight.absmax
                module = name.partition(".weight.")[0] if ".weight." in name else name.rpartition(".")[0]
                found.setdefault(module, {})[name] = tensors.get_slice(name).get_shape()
    return found


def lora_arguments(adapter: Path) -> dict[str, Any]:
    """Return vLLM's engine arguments for a LoRA adapter: it reserves memory by rank, and knows some ranks only."""
    rank = int(read_json(adapter / "adapter_config.json").get("r", 8))
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": next((n for n in (8, 16, 32, 64, 128, 256) if n >= rank), rank),
    }
