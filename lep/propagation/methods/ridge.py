"""The map of `conversion`, shrunk towards the identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation import linalg
from lep.propagation.method import method

if TYPE_CHECKING:
    from lep.propagation.linalg import Fit
    from lep.propagation.matrices import Matrices


@method(
    "as conversion, shrunk towards the identity",
    candidates=({"strength": 0.01}, {"strength": 0.1}, {"strength": 1.0}),
)
def ridge(matrices: Matrices, *, strength: float = 0.1) -> Fit | None:
    """``D = Id + (G + λ Id)⁻¹ Aᵀ(B − A)`` with A = T I_base, B = T I_inst, ``G = AᵀA``.

    Args:
        matrices: what the map is fitted to.
        strength: λ, in units of G's mean eigenvalue.
    """
    return linalg.ridge(matrices.conversion_sums(), strength)
