"""The rows of a new vocabulary, from those of the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.checkpoint import gather_mixed, mean_row
from lep.model.shards import torch_dtype
from lep.tokenizer.transfer import Transfer, Weights, apply_rows, build_transfer
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_BLOCK = 4096
Draw = Callable[[StoredTensor], Callable[[int], "torch.Tensor"]]
"""Takes an old matrix (rows x d); gives a function that draws so many new rows (n x d, float64)."""


@dataclass(frozen=True)
class Change:
    """From which vocabulary to which.

    Attributes:
        old: the vocabulary whose rows exist.
        new: the vocabulary whose rows are wanted.
        old_rows: rows of the old matrices, padding included.
        rows: rows of the new matrices, padding included.
    """

    old: Vocabulary
    new: Vocabulary
    old_rows: int
    rows: int

    def transfer(self, weights: Weights) -> Transfer:
        """Return T with the new tokens' rows as means over their bytes' old tokens; see `build_transfer`."""
        return build_transfer(self.old, self.new, old_rows=self.old_rows, new_rows=self.rows, weights=weights)

    @cached_property
    def mean(self) -> Transfer:
        """T of the mean initialisation."""
        return self.transfer("mean")

    @property
    def new_tokens(self) -> NDArray[np.int64]:
        """The new rows of tokens that the old vocabulary lacks."""
        return np.flatnonzero(self.mean.tokens & ~self.mean.copied)


@dataclass(frozen=True)
class NewRows:
    """The rows of a new vocabulary, as a strategy chooses them.

    Attributes:
        transfer: T, which makes new rows of old ones.
        head: T of a head of its own, where it is another.
        draw: draws the rows of new tokens in place of T.
        measures: figures for the manifest.
    """

    transfer: Transfer
    head: Transfer | None = None
    draw: Draw | None = None
    measures: Mapping[str, Any] = field(default_factory=dict)


def with_rows(transfer: Transfer, index: NDArray[np.int64], rows: scipy.sparse.csr_array) -> Transfer:
    """Return T with other rows.

    Args:
        transfer: T, new rows x old rows.
        index: the n rows to replace.
        rows: what to replace them by, n x old rows.
    """
    keep = np.ones(transfer.matrix.shape[0])
    keep[index] = 0
    place = scipy.sparse.csr_array(
        (np.ones(len(index)), (index, np.arange(len(index)))), shape=(transfer.matrix.shape[0], len(index))
    )
    mask = scipy.sparse.dia_array((keep[None, :], [0]), shape=(len(keep), len(keep)))
    result = scipy.sparse.csr_array(mask @ transfer.matrix + place @ rows)
    result.eliminate_zeros()
    return replace(transfer, matrix=result)


def new_rows(
    tensor: StoredTensor,
    transfer: Transfer,
    *,
    old_tokens: int,
    draw: Draw | None = None,
) -> Callable[[], Iterator[torch.Tensor]]:
    """Return a function that yields blocks of the new matrix (or bias), in the stored type.

    Args:
        tensor: the old matrix, old rows x d, or the old bias.
        transfer: T; copied rows are copied, others computed in float64 and rounded once.
        old_tokens: rows of the old matrix that are tokens, not padding.
        draw: draws the rows of a matrix that are not copied.
    """
    import torch

    kind = torch_dtype(tensor.dtype)

    def blocks() -> Iterator[torch.Tensor]:
        filler = torch.from_numpy(np.asarray(mean_row(tensor, old_tokens))).to(kind)
        drawn = draw(tensor) if draw is not None and len(tensor.shape) == 2 else None
        matrix = transfer.matrix
        for start in range(0, matrix.shape[0], _BLOCK):
            stop = min(start + _BLOCK, matrix.shape[0])
            copied = np.flatnonzero(transfer.copied[start:stop])
            result = filler.expand(stop - start, *tensor.shape[1:]).clone()
            if len(copied):
                sources = matrix.indices[matrix.indptr[start + copied]].astype(np.int64)
                result[torch.from_numpy(copied)] = gather_mixed(tensor, sources)
            others = np.flatnonzero(~transfer.copied[start:stop] & transfer.tokens[start:stop])
            if drawn is not None and len(others):
                result[torch.from_numpy(others)] = drawn(len(others)).to(kind)
            elif len(others):
                others = others[np.diff(matrix.indptr)[start + others] > 0]
                if len(others):
                    computed = torch.from_numpy(apply_rows(matrix[start + others], tensor))
                    if not bool(torch.isfinite(computed).all()):
                        raise UserError(
                            f"Tensor {tensor.name} of {tensor.file.parent.name} holds NaN or infinite values. "
                            "Repair or fetch that model again."
                        )
                    result[torch.from_numpy(others)] = computed.to(kind)
            yield result

    return blocks
