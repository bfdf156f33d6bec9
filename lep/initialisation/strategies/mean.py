"""The mean of the old tokens of a new token's bytes."""

from __future__ import annotations

from lep.initialisation.rows import Change, NewRows
from lep.initialisation.strategy import strategy


@strategy("mean of the old tokens of its bytes")
def mean(change: Change) -> NewRows:
    """``E_new(t) = mean_j E_old(u_j)`` over the old tokens u_1..u_K of t's bytes."""
    return NewRows(change.mean)
