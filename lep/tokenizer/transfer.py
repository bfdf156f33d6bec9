"""T: the initialisation as a sparse matrix, |V_new| x |V_old|, each row a mean over old tokens.

T is built once, from one batched encoding, and serves input embedding, head and bias alike. It is the operator of the
`conversion` method too (Learned Embedding Propagation, arXiv 2412.21140).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse

from darumeru.weights import StoredTensor
from lep.model.checkpoint import gather_mixed
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

Weights = Literal["mean", "weighted"]
SPACE_WEIGHT = 0.1
"""Weight of a piece that is only white space, against a piece with something in it, under `weighted`."""


@dataclass(frozen=True)
class Transfer:
    """New rows from old ones.

    Attributes:
        matrix: float64 CSR, new rows x old rows; each row sums to 1, or is empty (padding, or no source).
        pieces: for each new row the number of old tokens of its text; 1 where it is copied, 0 where the row is empty.
        copied: new rows whose token the old vocabulary has.
        tokens: new rows that belong to a token at all.
    """

    matrix: scipy.sparse.csr_array
    pieces: NDArray[np.int64]
    copied: NDArray[np.bool_]
    tokens: NDArray[np.bool_]

    def summary(self) -> dict[str, object]:
        """Return counts for a manifest: tokens copied, averaged (and from how many pieces), and left without a source."""
        averaged = self.tokens & ~self.copied & (self.pieces > 0)
        counts = np.bincount(np.minimum(self.pieces[averaged], 8), minlength=9)
        return {
            "copied": int(self.copied.sum()),
            "averaged": int(averaged.sum()),
            "mean_pieces": float(self.pieces[averaged].mean()) if averaged.any() else 0.0,
            "pieces": {("8+" if n == 8 else str(n)): int(counts[n]) for n in range(1, 9) if counts[n]},
            "without_source": int((self.tokens & (self.pieces == 0)).sum()),
        }


def build_transfer(
    old: Vocabulary, new: Vocabulary, *, old_rows: int, new_rows: int, weights: Weights = "mean"
) -> Transfer:
    """Return T for a pair of vocabularies.

    A token that the old vocabulary has (`Vocabulary.same_token`) is copied. Any other is the mean of the old tokens that
    its bytes are segmented into as they stand inside a text:
    ``E_new(t) = sum_j w_j E_old(u_j)``, with ``w_j = 1/K`` (`mean`), or ``w_j`` proportional to ``1/(j+1)`` and to 0.1
    for a piece of white space only (`weighted`, j counted from 0).

    Args:
        old: the vocabulary whose rows exist.
        new: the vocabulary whose rows are wanted.
        old_rows: rows of the old matrix; tokens beyond are not used.
        new_rows: rows of the new matrix, padding included.
        weights: `mean` or `weighted`.
    """
    source = np.full(new_rows, -1, dtype=np.int64)
    tokens = np.zeros(new_rows, dtype=bool)
    wanted: list[int] = []
    texts: list[bytes] = []
    for index in sorted(set(new.ids.values())):
        tokens[index] = True
        found = old.same_token(new, index)
        if found is not None and found < old_rows:
            source[index] = found
        else:
            wanted.append(index)
            texts.append(new.bytes_of(index))

    copied = source >= 0
    rows = [np.flatnonzero(copied)]
    columns = [source[copied]]
    values = [np.ones(len(rows[0]))]
    pieces = copied.astype(np.int64)
    spaces = _space_ids(old) if weights == "weighted" else frozenset()
    for index, ids in zip(wanted, old.pieces(texts), strict=True):
        usable = [u for u in ids if u < old_rows]
        if not usable:
            continue
        share = np.ones(len(usable))
        if weights == "weighted":
            share /= np.arange(1, len(usable) + 1)
            share *= [SPACE_WEIGHT if u in spaces else 1.0 for u in usable]
        rows.append(np.full(len(usable), index))
        columns.append(np.array(usable, dtype=np.int64))
        values.append(share / share.sum())
        pieces[index] = len(usable)
    matrix = scipy.sparse.csr_array(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(new_rows, old_rows)
    )
    matrix.sum_duplicates()
    return Transfer(matrix, pieces, copied, tokens)


def matching_ids(old: Vocabulary, new: Vocabulary) -> dict[int, int]:
    """Old id → id of the same token in the new vocabulary, where it has it."""
    found: dict[int, int] = {}
    for index, token in old.strings.items():
        other = new.same_token(old, index)
        if other is None and old.is_special(index):  # a tokenizer may have its control tokens in the vocabulary only
            other = new.ids.get(token)
        if other is not None:
            found[index] = other
    return found


def split_coupled(
    matrix: scipy.sparse.csr_array,
) -> tuple[scipy.sparse.csr_array, scipy.sparse.csr_array, NDArray[np.int64]]:
    """Return T's rows that only copy a token on its own, and the others.

    Tens of thousands of new tokens are made of a few thousand old ones, U; every row that reaches U is of the second kind.

    Args:
        matrix: T, rows x old rows, without empty rows.

    Returns:
        The copying rows (rows x old rows), the others as rows x U, and U.
    """
    counts = np.diff(matrix.indptr)
    coupled = np.unique(matrix[np.flatnonzero(counts > 1)].indices).astype(np.int64)
    touching = np.zeros(matrix.shape[1], dtype=bool)
    touching[coupled] = True
    reaching = np.add.reduceat(touching[matrix.indices], matrix.indptr[:-1]) > 0 if len(counts) else counts > 1
    return matrix[np.flatnonzero(~reaching)], matrix[np.flatnonzero(reaching)][:, coupled], coupled


def apply_rows(matrix: scipy.sparse.csr_array, tensor: StoredTensor) -> NDArray[np.floating]:
    """Return ``matrix @ tensor`` for a few rows of T: only the old rows that they use are read.

    Computed in float32 where the rows are stored in 16 bits (65,536 times finer than what they are rounded to), and in
    float64 otherwise.

    Args:
        matrix: b x old rows (a slice of T).
        tensor: old rows x dim, or old rows (a bias).
    """
    import torch

    used, columns = np.unique(matrix.indices, return_inverse=True)
    kind = torch.float32 if tensor.dtype in ("BF16", "F16") else torch.float64
    dense = gather_mixed(tensor, used.astype(np.int64)).to(kind).numpy()
    weights = matrix.data.astype(dense.dtype)
    part = scipy.sparse.csr_array((weights, columns, matrix.indptr), shape=(matrix.shape[0], len(used)))
    result: NDArray[np.floating] = part @ dense
    return result


def _space_ids(vocabulary: Vocabulary) -> frozenset[int]:
    return frozenset(
        index
        for index in vocabulary.strings
        if index not in vocabulary.added and not vocabulary.bytes_of(index).strip()
    )
