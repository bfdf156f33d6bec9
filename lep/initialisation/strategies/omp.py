"""Orthogonal matching pursuit (arXiv 2506.06607): sparse sums of shared tokens that come nearest to the new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from lep.initialisation.auxiliary import by_similarity, token_vectors
from lep.initialisation.rows import Change, NewRows
from lep.initialisation.strategy import strategy
from lep.model.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray


@strategy("shared tokens by orthogonal matching pursuit on its vector")
def omp(
    change: Change,
    *,
    corpus: Sequence[str | Path] = (),
    donor: str | Path | None = None,
    field: str = "text",
    atoms: int = 64,
) -> NewRows:
    """Sums of at most `atoms` shared tokens; `corpus`, `donor` and `field` as in `token_vectors`.

    Coefficients are fitted to a donor's rows as they are, since they are applied to rows as they are; those of the head to
    the rows of its head.
    """
    weigh = partial(pursuit_weights, atoms=atoms)
    found = by_similarity(change.mean, token_vectors(change.new, corpus, donor, field), weigh)
    if donor is None or open_checkpoint(donor).embeddings.tied:
        return found
    head = by_similarity(change.mean, token_vectors(change.new, corpus, donor, field, head=True), weigh)
    return replace(found, head=head.transfer)


def pursuit_weights(
    wanted: NDArray[np.float32], known: NDArray[np.float32], *, atoms: int = 64, block: int = 256
) -> scipy.sparse.csr_array:
    """Orthogonal matching pursuit: each wanted vector as a sparse sum of known ones; n x m, at most `atoms` a row.

    At each step the known vector with the largest cosine to the residual joins, and all coefficients are solved again
    (Goddard and Fernandes Neto, arXiv 2506.06607, for its use on tokenizers).

    Args:
        wanted: n x dim.
        known: m x dim, no row zero.
        atoms: k, at most dim.
        block: vectors worked on at a time.
    """
    import torch

    dictionary = torch.from_numpy(known)
    directions = dictionary / dictionary.norm(dim=1, keepdim=True)
    atoms = min(atoms, known.shape[1], known.shape[0])
    rows: list[scipy.sparse.csr_array] = []
    for start in range(0, len(wanted), block):
        target = torch.from_numpy(wanted[start : start + block])
        residual = target
        chosen = torch.zeros(len(target), 0, dtype=torch.long)
        weights = torch.zeros(len(target), 0, dtype=torch.float64)
        for _ in range(atoms):
            scores = (residual @ directions.T).abs()
            if chosen.shape[1]:
                scores.scatter_(1, chosen, -1.0)
            chosen = torch.cat([chosen, scores.argmax(dim=1, keepdim=True)], dim=1)
            picked = dictionary[chosen].double()
            gram = picked @ picked.transpose(1, 2)
            # A trace of ridge: near-copies of one vector would make the system singular.
            gram += (
                1e-8
                * gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
                * torch.eye(gram.shape[1], dtype=torch.float64)
            )
            weights = torch.linalg.solve(gram, picked @ target.double()[:, :, None])[:, :, 0]
            residual = (target.double() - (weights[:, None, :] @ picked)[:, 0]).float()
            if float((residual.norm(dim=1) / target.norm(dim=1)).max()) < 1e-5:
                break
        index = np.repeat(np.arange(len(target)), chosen.shape[1])
        rows.append(
            scipy.sparse.csr_array(
                (weights.numpy().ravel(), (index, chosen.numpy().ravel())), shape=(len(target), len(known))
            )
        )
    return scipy.sparse.vstack(rows, format="csr")
