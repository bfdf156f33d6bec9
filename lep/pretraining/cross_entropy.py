"""Cross-entropy of a linear head without the logits of a whole batch.

A head of 175,000 tokens makes 700 KB of float32 logits for each position; a batch of 8,192 positions would need 5.7 GB,
and as much again for their gradient. Here a few hundred positions at a time are multiplied, scored and forgotten: their
gradient is computed at once, which also saves the second multiplication that recomputing would cost (the way of Liger
Kernel, arXiv 2410.10989). On a GPU in bfloat16, cut-cross-entropy (arXiv 2411.09009) or Liger Kernel is used if it is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_IGNORE = -100
_CPU_VALUES, _GPU_VALUES = 1 << 24, 1 << 28
"""Logits at a time: 64 MiB of float32 on a CPU, 1 GiB on a GPU, whose multiplications want to be large."""


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
    """``Σ_i −log softmax(f(W h_i + b))[t_i]`` over the positions with a target, a float32 scalar.

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
    plain = new_rows is None and chunk is None and logits.scale == 1.0
    if plain and (kernel := _kernel(hidden)) is not None:
        return kernel(hidden, weight.to(hidden.dtype), targets, bias, logits.cap)
    if chunk is None:
        values = _GPU_VALUES if hidden.is_cuda else _CPU_VALUES
        chunk = max(64, values // weight.shape[0])
    with torch.autocast(hidden.device.type, enabled=False):  # types are chosen here
        apply: Callable[..., torch.Tensor] = _ChunkedCrossEntropy.apply
        return apply(hidden, weight, bias, new_rows, rows, targets, logits, chunk)


def _kernel(hidden: torch.Tensor) -> Callable[..., torch.Tensor] | None:
    """The best fused kernel that is installed, for half precision on a GPU."""
    if not hidden.is_cuda or hidden.dtype not in (torch.bfloat16, torch.float16):
        return None
    try:
        from cut_cross_entropy import linear_cross_entropy as cut
    except ImportError:
        pass
    else:
        return lambda h, w, t, bias, cap: cut(h, w, t, bias=bias, softcap=cap, reduction="sum")
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError:
        return None
    return lambda h, w, t, bias, cap: LigerFusedLinearCrossEntropyLoss(reduction="sum", softcap=cap)(w, h, t, bias)


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
            normal = values.logsumexp(dim=1, keepdim=True)
            total += (normal - values.gather(1, target)).sum()
            if not any(wanted[:4]):
                continue
            slope = (values - normal).exp_()
            slope.scatter_add_(1, target, torch.full_like(target, -1, dtype=slope.dtype))
            if logits.cap is not None:
                slope *= 1 - (values / logits.cap) ** 2
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
