"""Cross-entropy of a linear head without the logits of a whole batch.

A head of 175,000 tokens makes 700 KB of float32 logits for each position; a batch of 8,192 positions would need 5.7 GB,
and as much again for their gradient. Here a few hundred positions at a time are multiplied, scored and forgotten: their
gradient is computed at once, which also saves the second multiplication that recomputing would cost (the way of Liger
Kernel, arXiv 2410.10989). On a GPU in half precision a fused kernel is used if one is installed (`lep.pretraining.kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lep.pretraining.kernels import Kernel, kernel_for

_IGNORE = -100
_CPU_VALUES, _GPU_VALUES = 6 << 20, 1 << 28
"""Logits at a time: 24 MiB of float32 on a CPU, the fastest of 16 to 160 MiB; 1 GiB on a GPU, whose multiplications want to be
large."""


@dataclass(frozen=True)
class Logits:
    """Changes that a model makes to its head's output: ``cap · tanh(scale · x / cap)`` (Gemma 2: cap; Cohere, Granite: scale)."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Logits:
        """Read from a model's configuration."""
        text = config.get_text_config()
        multiplied, divided = getattr(text, "logit_scale", None), getattr(text, "logits_scaling", None)
        return cls((multiplied or 1.0) / (divided or 1.0), getattr(text, "final_logit_softcapping", None))

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        logits = logits * self.scale if self.scale != 1.0 else logits
        return self.cap * torch.tanh(logits / self.cap) if self.cap is not None else logits


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    new_rows: torch.Tensor | None = None,
    rows: torch.Tensor | None = None,
    logits: Logits = Logits(),
    chunk: int | None = None,
) -> torch.Tensor:
    """Return ``Σ_i −log softmax(f(W h_i + b))[t_i]`` over the positions with a target, a float32 scalar.

    Multiplications are in the type of `hidden`, log-sum-exp and sums in float32.

    Args:
        hidden: positions x d.
        weight: |V| x d; cast to the type of `hidden`, its gradient is in its own type.
        targets: positions; −100 has no target.
        bias: |V|.
        new_rows: n x d, the values that `weight` has in `rows`: they get the gradient that these rows would get.
        rows: n, row numbers, with `new_rows`.
        logits: f.
        chunk: positions at a time; chosen by |V| where None.
    """
    wanted = (targets != _IGNORE).nonzero().squeeze(1)
    hidden, targets = hidden[wanted], targets[wanted]
    kernel = fused_kernel(hidden.device, hidden.dtype, logits=logits, new_rows=new_rows is not None)
    if kernel is not None and chunk is None:
        cast = None if bias is None else bias.to(hidden.dtype)
        return kernel.loss(hidden, weight.to(hidden.dtype), targets, cast, logits.cap)
    if chunk is None:
        values = _GPU_VALUES if hidden.is_cuda else _CPU_VALUES
        chunk = max(64, values // weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):  # types are chosen here
        apply: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
        return apply(hidden, weight, bias, new_rows, rows, targets, logits, chunk)


def fused_kernel(
    device: torch.device, dtype: torch.dtype, *, logits: Logits = Logits(), new_rows: bool = False
) -> Kernel | None:
    """Return the fused kernel that `linear_cross_entropy` takes; None where it computes in chunks itself.

    Args:
        device: of the hidden states.
        dtype: of the hidden states.
        logits: f; kernels know a cap, no scale.
        new_rows: whether some rows get gradients of their own, which kernels cannot give them.
    """
    return None if new_rows or logits.scale != 1.0 else kernel_for(device, dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        new_rows: torch.Tensor | None,
        rows: torch.Tensor | None,
        targets: torch.Tensor,
        logits: Logits,
        chunk: int,
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad
        kind = hidden.dtype
        matrix, offset = weight.to(kind), None if bias is None else bias.to(kind)
        to_hidden = torch.empty_like(hidden) if wanted[0] else None
        to_weight = torch.zeros_like(weight) if wanted[1] else None
        to_bias = torch.zeros_like(bias) if wanted[2] and bias is not None else None
        to_rows = torch.zeros_like(new_rows) if wanted[3] and new_rows is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), chunk):
            part, target = hidden[start : start + chunk], targets[start : start + chunk, None]
            values = logits(torch.nn.functional.linear(part, matrix, offset).float())
            factor = None if logits.cap is None else 1 - (values / logits.cap) ** 2
            wanted_logits = values.gather(1, target)
            # In place from here on: fresh memory of this size costs more than what is computed in it.
            largest = values.amax(dim=1, keepdim=True)
            slope = values.sub_(largest).exp_()
            sums = slope.sum(dim=1, keepdim=True)
            total += (largest + sums.log() - wanted_logits).sum()
            if not any(wanted[:4]):
                continue
            slope /= sums
            slope.scatter_add_(1, target, torch.full_like(target, -1, dtype=slope.dtype))
            if factor is not None:
                slope *= factor
            if logits.scale != 1.0:
                slope *= logits.scale
            if to_bias is not None:
                to_bias += slope.sum(dim=0)
            slope = slope.to(kind)
            if to_hidden is not None:
                torch.mm(slope, matrix, out=to_hidden[start : start + chunk])
            if to_weight is not None:
                _add_product(to_weight, slope, part)
            if to_rows is not None and rows is not None:
                _add_product(to_rows, slope[:, rows], part)
        ctx.gradients = (to_hidden, to_weight, to_bias, to_rows)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = ctx.gradients
        ctx.gradients = None
        for gradient in gradients:
            if gradient is not None:
                gradient *= outer[0].to(gradient.dtype)
        return (*gradients, None, None, None, None)


def _add_product(total: torch.Tensor, slope: torch.Tensor, hidden: torch.Tensor) -> None:
    """``total += slopeᵀ hidden``, in place where the types are one."""
    if total.dtype == slope.dtype:
        total.addmm_(slope.T, hidden)
    else:
        total += slope.T @ hidden
