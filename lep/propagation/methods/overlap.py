"""The map from base to instruct rows of the tokens that the vocabularies share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation.linalg import least_squares
from lep.propagation.method import method

if TYPE_CHECKING:
    from lep.propagation.linalg import Fit
    from lep.propagation.matrices import Matrices


@method("least squares over the shared tokens", candidates=({},))
def overlap(matrices: Matrices) -> Fit | None:
    """``argmin ‖I_base[C] D − I_inst[C]‖`` over the tokens C that the vocabularies share (arXiv 2412.21140)."""
    return least_squares(matrices.shared_rows(), matrices.dim)
