"""Which numbers the processor computes fast. What PyTorch says of a processor is asked for here alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HALF = ("bfloat16", "float16")


def slow_half(capabilities: Mapping[str, Any]) -> bool:
    """Whether a processor multiplies matrices of 16-bit floats several times slower than of float32.

    oneDNN, which PyTorch computes with, has code for them from AVX-512 and AVX-NE-CONVERT on; on older x86 processors, and on
    many new ones for laptops, PyTorch's own loops are taken. Of other architectures nothing is known here.

    Args:
        capabilities: as `torch.cpu.get_capabilities()` gives them; where names are missing, nothing is known.

    >>> slow_half({"architecture": "x86_64", "avx2": True, "avx512_bw": False})
    True
    >>> slow_half({"architecture": "x86_64", "avx2": True, "avx512_bw": True}), slow_half({})
    (False, False)
    """
    if capabilities.get("architecture") != "x86_64" or "avx512_bw" not in capabilities:
        return False
    return not (capabilities["avx512_bw"] or capabilities.get("avx_ne_convert"))


def slow_here(dtype: str) -> str | None:
    """Return one sentence if computing in this type is slow on this machine's processor.

    Args:
        dtype: as PyTorch calls it, such as `bfloat16`.
    """
    if dtype not in HALF:
        return None
    import torch

    # Older versions of PyTorch do not tell.
    asked = getattr(torch.cpu, "get_capabilities", dict)
    if not slow_half(asked()):
        return None
    return (
        f"This processor has no AVX-512 and computes {dtype} slowly: float32 (--dtype float32, in a recipe dtype: float32) is at "
        "least twice as fast, and the weights take twice the memory."
    )
