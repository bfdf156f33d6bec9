"""The trained rows as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation.method import method

if TYPE_CHECKING:
    from lep.propagation.linalg import Fit
    from lep.propagation.matrices import Matrices


@method("the trained rows as they are", candidates=({},))
def swap(matrices: Matrices) -> Fit | None:
    """Map by the identity."""
    return None
