"""The map from base to instruct rows over the whole new vocabulary, as the mean initialisation makes its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation.linalg import least_squares
from lep.propagation.method import method

if TYPE_CHECKING:
    from lep.propagation.linalg import Fit
    from lep.propagation.matrices import Matrices


@method("least squares over the whole new vocabulary, its rows as the mean initialisation makes them", candidates=({},))
def conversion(matrices: Matrices) -> Fit | None:
    """``argmin ‖T I_base D − T I_inst‖`` over the whole new vocabulary, T the mean initialisation (arXiv 2412.21140)."""
    return least_squares(matrices.converted_rows(), matrices.dim, matrices.conversion_sums())
