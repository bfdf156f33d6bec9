"""The head's cross-entropy in bfloat16, fused and in chunks, against float32: loss and gradients.

    python -m benchmarks.gpu_check.losses KERNEL      (cut-cross-entropy, liger-kernel, or chunked)

Prints JSON: the kernel's name and the relative differences (norm of the difference over the norm) of loss, gradient of the
hidden states and gradient of the weights; `rare` is that of the rows whose gradients are smallest, which a filter would drop,
`alone` that of the weights where hidden states need none (a head over frozen layers).
"""

from __future__ import annotations

import json
import sys

import torch

from lep.pretraining import kernels
from lep.pretraining.cross_entropy import linear_cross_entropy


def main() -> None:
    """Compute all three and compare."""
    wanted = sys.argv[1]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, width, positions = (128_000, 2048, 4096) if device == "cuda" else (4_000, 64, 256)
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, device=device)
    weight = torch.randn(rows, width, device=device) * 0.05
    targets = torch.randint(0, rows // 2, (positions,), device=device)  # the other half is never a target
    exact = gradients(hidden, weight, targets, chunk=256)
    half = torch.bfloat16
    chunk = 256 if wanted == kernels.PLAIN else None
    kernel = None if chunk else kernels.kernel_for(torch.device(device), half)
    name = kernel.name if kernel else kernels.PLAIN
    got = gradients(hidden.to(half), weight, targets, chunk=chunk)
    names = ("loss", "hidden", "weight", "rare")
    found = dict(zip(names, map(relative, got, exact), strict=True))
    found["alone"] = relative(alone(hidden.to(half), weight, targets, chunk), exact[2])
    print(json.dumps({"kernel": name, **found}))


def gradients(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int | None
) -> list[torch.Tensor]:
    """Loss, gradient of the hidden states, of the weights, and of the weights' rows that are no target."""
    hidden, weight = hidden.detach().requires_grad_(), weight.detach().requires_grad_()
    loss = linear_cross_entropy(hidden, weight, targets, chunk=chunk) / len(targets)
    to_hidden, to_weight = torch.autograd.grad(loss, [hidden, weight])
    return [loss.detach().float(), to_hidden.float(), to_weight.float(), to_weight[len(weight) // 2 :].float()]


def alone(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int | None) -> torch.Tensor:
    """Gradient of the weights where hidden states need none."""
    weight = weight.detach().requires_grad_()
    (linear_cross_entropy(hidden.detach(), weight, targets, chunk=chunk) / len(targets)).backward()
    return torch.zeros_like(weight) if weight.grad is None else weight.grad.float()


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((got - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    main()
