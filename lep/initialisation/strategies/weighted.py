"""The weighted mean of the old tokens of a new token's bytes."""

from __future__ import annotations

from lep.initialisation.rows import Change, NewRows
from lep.initialisation.strategy import strategy


@strategy("weighted mean of the old tokens of its bytes: earlier pieces count more, white space hardly")
def weighted(change: Change) -> NewRows:
    """As `mean` with weights ``1/(j+1)``, a tenth of that for pieces of white space."""
    return NewRows(change.transfer("weighted"))
