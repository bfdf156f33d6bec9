"""Rows that are moved by as much as the instruct model moved the tokens that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from lep.propagation.matrices import Matrices, finite_rows

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from lep.propagation.linalg import Fit


@dataclass(frozen=True)
class Shift:
    """``E_ru D + T (E_inst − E_base D)``, T the mean initialisation: what the map D cannot express is added, token by token.

    A token whose new row never was trained gets its row of the instruct model, whatever D is: ``T E_inst``. Old tokens that
    the instruct model lacks add nothing.

    Attributes:
        matrices: the matrix of the three models.
        fit: D; None for the identity.
    """

    matrices: Matrices
    fit: Fit | None = None

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """Return rows `start` and following of the adapted matrix (b x d), mapped and moved."""
        import torch

        mapped = rows if self.fit is None else self.fit.apply(rows)
        part = self.matrices.transfer()[start : start + len(rows)]
        if not part.nnz:
            return mapped
        used, places = np.unique(part.indices, return_inverse=True)
        weights = scipy.sparse.csr_array((part.data, places, part.indptr), shape=(part.shape[0], len(used)))
        moved = mapped.clone()
        moved[: part.shape[0]] += torch.from_numpy(weights @ self._differences(used.astype(np.int64))).to(rows.dtype)
        return moved

    def summary(self) -> dict[str, object]:
        """Return the figures of D, and how many rows are moved."""
        known = (self.matrices.alignment.base_to_instruct >= 0).astype(np.int64)
        moved = int(((self.matrices.transfer() != 0).astype(np.int64) @ known > 0).sum())
        return {**({"map": "identity"} if self.fit is None else self.fit.summary()), "rows_moved": moved}

    def _differences(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """``E_inst − E_base D`` of these base tokens (n x d); 0 where the instruct model lacks the token."""
        import torch

        found = self.matrices.alignment.base_to_instruct[tokens]
        known = found >= 0
        result = np.zeros((len(tokens), self.matrices.dim))
        base = torch.from_numpy(finite_rows(self.matrices.base, tokens[known]))
        before = (base if self.fit is None else self.fit.apply(base)).numpy()
        result[known] = finite_rows(self.matrices.instruct, found[known]) - before
        return result
