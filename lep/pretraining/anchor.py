"""Trained weights pulled back to where they began: weight decay towards the first values instead of zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lep.model.checkpoint import Checkpoint
from lep.model.sharding import own, own_rows, span
from lep.model.shards import read_rows
from lep.pretraining.trainable import Trainable


class Anchor:
    """After each step ``w ← w − η λ (w − w₀)``, η its learning rate: decoupled from the gradient, as AdamW's decay is.

    Weights that began as something are pulled: rows of old tokens, layers, norms, and B of LoRA, which began at zero. Rows of
    new tokens are free, and A, since without B it changes nothing. This is L2-SP (arXiv 1802.01483), decoupled.

    Args:
        trainable: what is trained.
        source: the model as it was before the first step of the training.
        strength: λ.
        new_ids: rows of new tokens.
    """

    def __init__(self, trainable: Trainable, source: Checkpoint, strength: float, new_ids: Sequence[int]) -> None:
        self.strength = strength
        self._first: dict[int, torch.Tensor | None] = {}
        self._free: dict[int, torch.Tensor] = {}
        for name, parameter in trainable.parameters.items():
            if ".lora_B." in name:
                self._first[id(parameter)] = None
            if ".lora_" in name or name.endswith(".new_rows"):
                continue
            stored = trainable.place(name, source)
            if stored is not None:
                self._first[id(parameter)] = read_rows(stored, *span(parameter)).to(parameter.device)
            if name in trainable.embedding or name in trainable.head:
                free = torch.tensor(list(new_ids), dtype=torch.long, device=parameter.device)
                self._free[id(parameter)] = own_rows(parameter, free)[1]

    @torch.no_grad()
    def pull(self, optimizer: torch.optim.Optimizer) -> None:
        """Pull what the optimizer has just changed."""
        for group in optimizer.param_groups:
            share = min(float(group["lr"]) * self.strength, 1.0)
            for parameter in group["params"]:
                if id(parameter) not in self._first:
                    continue
                first, free = self._first[id(parameter)], self._free.get(id(parameter))
                values = own(parameter)
                kept = None if free is None else values[free]
                if first is None:
                    values.mul_(1 - share)
                else:
                    values.lerp_(first.to(values.dtype), share)
                if kept is not None:
                    values[free] = kept
