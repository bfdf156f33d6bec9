"""The rows that a map is fitted to: the same matrix of base, adapted and instruct model, and which rows correspond."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.checkpoint import gather_mixed
from lep.propagation.alignment import Alignment
from lep.propagation.linalg import Blocks, Gram, accumulate, add_symmetric
from lep.tokenizer.transfer import split_coupled

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 2048
_PANEL = 512
_MOST_COUPLED = 16_384
"""Up to this many old tokens that new ones are made of, their rows are held in memory (1.6 GB at d = 4096)."""


@dataclass(frozen=True)
class Matrices:
    """The embedding, or the head, of the three models.

    Attributes:
        name: `embedding` or `head`.
        base: |V| x d.
        adapted: |V_new| x d, trained.
        instruct: |V_inst| x d.
        alignment: which rows are of the same token.
        transfer: gives T of the mean initialisation, |V_new| x |V|, with a row for each row of `adapted`.
        fitted: gives the rows of T that a map is fitted to (see `fitted_rows`).
        reused: the Gram sums are kept (two d x d matrices), because more than one method is fitted.
    """

    name: str
    base: StoredTensor
    adapted: StoredTensor
    instruct: StoredTensor
    alignment: Alignment
    transfer: Callable[[], scipy.sparse.csr_array]
    fitted: Callable[[], scipy.sparse.csr_array]
    reused: bool = False

    @property
    def dim(self) -> int:
        """The number of columns, d."""
        return self.base.shape[1]

    def shared_rows(self) -> Blocks:
        """Blocks of base and instruct rows of the tokens that all three vocabularies share."""
        return overlap_blocks(self.base, self.instruct, self.alignment.shared[:, [0, 2]])

    def converted_rows(self) -> Blocks:
        """Blocks of rows of A = T E_base and B = T E_inst, one for each token of the new vocabulary."""
        return conversion_blocks(self.base, self.instruct, self.fitted(), self.alignment.base_to_instruct)

    def conversion_sums(self) -> Gram:
        """The Gram sums of `converted_rows`, which the caller may overwrite."""
        return self._kept_sums.clone() if self.reused else self._sums()

    @cached_property
    def _kept_sums(self) -> Gram:
        return self._sums()

    def _sums(self) -> Gram:
        return conversion_sums(self.base, self.instruct, self.fitted(), self.alignment.base_to_instruct)


def fitted_rows(transfer: scipy.sparse.csr_array, alignment: Alignment) -> scipy.sparse.csr_array:
    """T without the rows that are empty, that the instruct model keeps as its own, or that reach tokens it lacks."""
    rows = transfer.shape[0]
    kept = np.ones(rows)
    kept[[index for index in alignment.kept if index < rows]] = 0
    matrix = scipy.sparse.csr_array(scipy.sparse.dia_array((kept[None, :], [0]), shape=(rows, rows)) @ transfer)
    matrix.eliminate_zeros()
    lacking = (alignment.base_to_instruct < 0).astype(np.int64)
    reached = (matrix != 0).astype(np.int64) @ lacking
    return matrix[np.flatnonzero((np.diff(matrix.indptr) > 0) & (reached == 0))]


def overlap_blocks(source: StoredTensor, target: StoredTensor, pairs: NDArray[np.int64]) -> Blocks:
    """Rows of A and B for `overlap`: the same tokens of base and instruct, b x d each, float64.

    Args:
        source: the base model's matrix.
        target: the instruct model's matrix.
        pairs: n x 2 row numbers.
    """

    def blocks() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for start in range(0, len(pairs), _BLOCK):
            part = pairs[start : start + _BLOCK]
            yield finite_rows(source, part[:, 0]), finite_rows(target, part[:, 1])

    return blocks


def conversion_blocks(
    source: StoredTensor, target: StoredTensor, matrix: scipy.sparse.csr_array, columns: NDArray[np.int64]
) -> Blocks:
    """Rows of A = T E_base and B = T E_inst for `conversion`, b x d each, float64.

    Args:
        source: the base model's matrix.
        target: the instruct model's matrix.
        matrix: T, rows x base rows.
        columns: for each base row the instruct row of the same token.
    """

    def blocks() -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        for start in range(0, matrix.shape[0], _BLOCK):
            part = matrix[start : start + _BLOCK]
            used, compact = np.unique(part.indices, return_inverse=True)
            weights = scipy.sparse.csr_array((part.data, compact, part.indptr), shape=(part.shape[0], len(used)))
            yield weights @ finite_rows(source, used.astype(np.int64)), weights @ finite_rows(target, columns[used])

    return blocks


def conversion_sums(
    source: StoredTensor, target: StoredTensor, matrix: scipy.sparse.csr_array, columns: NDArray[np.int64]
) -> Gram:
    """The Gram sums of `conversion_blocks`, without the rows of T E where many new tokens share few old ones.

    With U the old tokens that new ones are made of, and T_U the part of T that reaches them, ``AᵀA`` is the sum of the
    tokens that are only copied and of ``E_Uᵀ (T_Uᵀ T_U E_U)``: products of |U| rows in place of those of all new tokens.
    """
    import torch

    dim = source.shape[1]
    copies, mixed, coupled = split_coupled(matrix)
    if len(coupled) > min(_MOST_COUPLED, mixed.shape[0]):
        return accumulate(conversion_blocks(source, target, matrix, columns), dim)
    sums = accumulate(conversion_blocks(source, target, copies, columns), dim)
    if not len(coupled):
        return sums
    left, right = finite_rows(source, coupled), finite_rows(target, columns[coupled])
    product = np.empty_like(left)
    norm = 0.0
    for start in range(0, dim, _PANEL):
        panel = slice(start, start + _PANEL)
        product[:, panel] = mixed.T @ (mixed @ np.ascontiguousarray(left[:, panel]))
        norm += float(np.linalg.norm(mixed @ np.ascontiguousarray(right[:, panel]))) ** 2
    a, b, p = torch.from_numpy(left), torch.from_numpy(right), torch.from_numpy(product)
    add_symmetric(sums.gram, a, p)
    sums.cross.addmm_(p.T, b)
    return replace(
        sums,
        target=sums.target + norm,
        rows=sums.rows + mixed.shape[0],
        equal=sums.equal and torch.equal(a, b),
    )


def finite_rows(tensor: StoredTensor, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return rows of a matrix in float64.

    Raises:
        UserError: a value in them is NaN or infinite.
    """
    import torch

    values: NDArray[np.float64] = gather_mixed(tensor, rows).to(torch.float64).numpy()
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise _not_finite(tensor, [int(row) for row in rows[bad]])
    return values


def _not_finite(tensor: StoredTensor, rows: Sequence[int]) -> UserError:
    shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
    return UserError(
        f"Tensor {tensor.name} of {tensor.file.parent.name} holds NaN or infinite values in row {shown}. "
        "Repair or fetch that model again."
    )
