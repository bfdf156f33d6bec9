"""AdamW whose weight decay leaves the rows of an embedding alone that no batch used.

AdamW shrinks a weight at each step whether or not it got a gradient. Over the paper's 54,000 steps at 0.1 and 2e-4 a row
that no text ever used would lose four tenths of its length. Here a row of a token matrix decays in the steps whose batch
holds its token, as input or as label; the rows of a head get a small gradient at every step through the softmax, yet
decay by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from lep.model.sharding import own_rows


class UsedRows:
    """The tokens of the batches since the last step, in all processes.

    Args:
        count: |V|.
        only: row numbers that matrices of new rows stand for, or None.
    """

    def __init__(self, count: int, device: torch.device, only: torch.Tensor | None = None) -> None:
        self._used = torch.zeros(count, dtype=torch.uint8, device=device)
        self._only = only

    def note(self, ids: torch.Tensor) -> None:
        """Add the tokens of a batch."""
        self._used[ids.to(self._used.device).flatten()] = 1

    def take(self) -> torch.Tensor:
        """Return the numbers of the rows that were used since the last call."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(self._used, op=torch.distributed.ReduceOp.MAX)
        used = self._used if self._only is None else self._used[self._only]
        rows = used.nonzero().squeeze(1)
        self._used.zero_()
        return rows


class RowAdamW(torch.optim.AdamW):
    """AdamW; in groups with a `row_decay` only used rows decay, ``w ← (1 − lr · row_decay) w``.

    Args:
        groups: parameter groups of torch, each with `weight_decay` and `row_decay` (one of them 0).
        used: what the batches used.
        after: called once behind each step. (Hooks of a step are called twice where the process has made an AdamW before, since
            torch wraps the step of each class, and this one's calls AdamW's.)
        settings: of `torch.optim.AdamW`.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        used: UsedRows,
        after: Callable[[torch.optim.Optimizer], None] = lambda _: None,
        **settings: Any,
    ) -> None:
        super().__init__(groups, **settings)
        self._rows_used, self._after = used, after

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step."""
        rows = self._rows_used.take()
        for group in self.param_groups:
            if group["row_decay"]:
                for parameter in group["params"]:
                    values, places, _ = own_rows(parameter, rows)
                    values[places] *= 1 - group["lr"] * group["row_decay"]
        result: float | None = super().step(closure)
        self._after(self)
        return result
