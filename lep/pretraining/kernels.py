"""Fused kernels of other packages that compute a linear head's cross-entropy on a GPU, with the settings that training needs.

Their defaults are made for fine-tuning. cut-cross-entropy (arXiv 2411.09009) leaves small gradients of the classifier out and
sums in the type of the weights; its authors name `cce_kahan_full_c` for pre-training, which does neither. The releases on
PyPI (up to 25.1.1) do not have it, only its repository has, so they are not used. Liger Kernel (arXiv 2410.10989) sums the
weights' gradient in the type of the weights unless it is given `accum_dtype`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import torch

CUT = "cce_kahan_full_c"
"""The preset of cut-cross-entropy: no filter on the classifier's gradients, Kahan summation."""

PLAIN = "chunked"
"""What the manifest calls this package's own computation, see `lep.pretraining.cross_entropy`."""


@dataclass(frozen=True)
class Kernel:
    """A fused kernel: what the manifest calls it, and ``(hidden, weight, targets, bias, cap) → Σ_i −log p_i``, float32.

    Hidden states and weights are of one half-precision type; gradients are summed in float32 and rounded to it once.
    """

    name: str
    loss: Callable[..., torch.Tensor]


def kernel_for(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Return the best installed kernel for hidden states of this kind; None where there is none, or none fits.

    The kernels are written for NVIDIA GPUs and half precision.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    return _installed() if device.type == "cuda" and half else None


@cache
def _installed() -> Kernel | None:
    return _cut() or _liger()


def _cut() -> Kernel | None:
    try:
        from cut_cross_entropy import LinearCrossEntropyImpl, linear_cross_entropy
    except ImportError:
        return None
    if not hasattr(LinearCrossEntropyImpl, CUT.upper()):
        return None
    return Kernel(
        f"cut-cross-entropy {_version('cut-cross-entropy')}, {CUT}",
        lambda h, w, t, bias, cap: linear_cross_entropy(h, w, t, bias=bias, softcap=cap, reduction="sum", impl=CUT),
    )


def _liger() -> Kernel | None:
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss as Loss
    except ImportError:
        return None

    def loss(
        hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None, cap: float | None
    ) -> torch.Tensor:
        if torch.is_grad_enabled() and not hidden.requires_grad:
            # Where they need no gradient (a head alone over frozen layers), Liger gives none to the weights either.
            hidden = hidden.detach().requires_grad_()
        result: torch.Tensor = Loss(reduction="sum", softcap=cap, accum_dtype=torch.float32)(
            weight, hidden, targets, bias
        )
        return result

    return Kernel(f"liger-kernel {_version('liger-kernel')}, float32 sums", loss)


def _version(distribution: str) -> str:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(distribution)
    return "of unknown version"
