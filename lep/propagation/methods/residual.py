"""The rows that conversion gives, and what its map leaves over of the instruct model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation.linalg import least_squares
from lep.propagation.method import method
from lep.propagation.shift import Shift

if TYPE_CHECKING:
    from lep.propagation.matrices import Matrices


@method("as conversion, and added what its map leaves over of the instruct model's rows", candidates=({},))
def residual(matrices: Matrices) -> Shift:
    """``I_ru D + T (I_inst − I_base D)`` with D of `conversion`, T the mean initialisation.

    Where the instruct model is a linear map of the base, the rest is zero and this is conversion; where nothing was trained,
    it is ``T I_inst``, the mean initialisation of the instruct model itself.
    """
    return Shift(matrices, least_squares(matrices.converted_rows(), matrices.dim, matrices.conversion_sums()))
