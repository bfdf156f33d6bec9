"""Rounding that keeps small changes on average."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def round_unbiased(values: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """Return float32 values in bfloat16 or float16, each at one of its two neighbours, drawn so that the mean is the value.

    With neighbours a ≤ |x| < b, the result is b with probability (|x| − a) / (b − a), with the sign of x. What the type can
    express stays as it is. Rounding to the nearest undoes a change that is smaller than half a step of the type: of a short
    LoRA training of a bfloat16 model it leaves a quarter (`benchmarks/rounding.py`; arXiv 2010.06192 has the same of weight
    updates).

    Args:
        values: (…) float32, on the CPU.
        dtype: bfloat16 or float16; any other type gets its own nearest rounding.
        generator: of the draws.

    Returns:
        (…) of `dtype`.
    """
    import torch

    if dtype not in (torch.bfloat16, torch.float16):
        return values.to(dtype)
    size = values.abs()
    below = size.to(dtype)
    # The bits of floating-point numbers of one sign are ordered as the numbers are.
    bits = below.view(torch.int16)
    bits = bits - (below.float() > size).to(torch.int16)
    below, above = bits.view(dtype).float(), (bits + 1).view(dtype).float()
    drawn = torch.rand(values.shape, generator=generator) < (size - below) / (above - below)
    # What is beyond the largest number, and what is no number, is left to the ordinary rounding.
    sound = size < torch.finfo(dtype).max
    return torch.where(sound, torch.where(drawn, above, below).copysign(values), values).to(dtype)


def generator_for(name: str, seed: int = 0) -> torch.Generator:
    """Return the draws for one tensor: the same for its name and the seed, wherever and in whatever order it is rounded."""
    import torch

    return torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
