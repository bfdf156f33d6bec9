"""FOCUS (Dobler and de Melo, arXiv 2305.14481): sums of shared tokens by their similarity to the new one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from lep.initialisation.auxiliary import by_similarity, token_vectors, unit_rows
from lep.initialisation.rows import Change, NewRows
from lep.initialisation.strategy import strategy

if TYPE_CHECKING:
    from numpy.typing import NDArray


@strategy("shared tokens weighted by sparsemax of their similarity to it")
def focus(
    change: Change, *, corpus: Sequence[str | Path] = (), donor: str | Path | None = None, field: str = "text"
) -> NewRows:
    """Sums of shared tokens; `corpus`, `donor` and `field` as in `token_vectors`."""
    vectors = unit_rows(token_vectors(change.new, corpus, donor, field))
    return by_similarity(change.mean, vectors, similarity_weights)


def similarity_weights(wanted: NDArray[np.float32], known: NDArray[np.float32]) -> scipy.sparse.csr_array:
    """For each wanted vector, sparsemax over its cosines with the known ones; n x m, rows sum to 1.

    Sparsemax is the projection onto the simplex (Martins and Astudillo, arXiv 1602.02068): ``max(z − τ, 0)`` with τ
    such that the weights sum to 1.

    Args:
        wanted: n x dim unit vectors.
        known: m x dim unit vectors.
    """
    rows: list[scipy.sparse.csr_array] = []
    for start in range(0, len(wanted), 512):
        scores = wanted[start : start + 512] @ known.T
        # Over the 512 nearest only, which is exact wherever fewer than 512 tokens get a weight.
        top = min(512, scores.shape[1])
        columns = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        picked = np.take_along_axis(scores, columns, axis=1).astype(np.float64)
        ordered = -np.sort(-picked, axis=1)
        sums = np.cumsum(ordered, axis=1) - 1
        number = np.arange(1, top + 1)
        support = (ordered * number > sums).sum(axis=1)
        tau = sums[np.arange(len(sums)), support - 1] / support
        weights = np.maximum(picked - tau[:, None], 0)
        index = np.repeat(np.arange(len(weights)), top)
        rows.append(
            scipy.sparse.csr_array((weights.ravel(), (index, columns.ravel())), shape=(len(weights), len(known)))
        )
    result = scipy.sparse.vstack(rows, format="csr")
    result.eliminate_zeros()
    return result
