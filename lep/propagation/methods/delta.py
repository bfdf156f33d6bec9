"""The trained rows, moved by as much as the instruct model moved the tokens that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lep.propagation.method import method
from lep.propagation.shift import Shift

if TYPE_CHECKING:
    from lep.propagation.matrices import Matrices


@method("the trained rows, moved as the instruct model moved the tokens they are made of", candidates=({},))
def delta(matrices: Matrices) -> Shift:
    """``I_ru + T (I_inst − I_base)``, T the mean initialisation.

    In place of a map that is alike for all tokens, each token's own change: what the instruct model learned about single
    tokens is kept, which no d x d matrix can express. Of the layers, ``W_inst + (W_adapted − W_base)`` is the same sum
    (`lep.propagation.backbone`).
    """
    return Shift(matrices)
