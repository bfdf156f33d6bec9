"""A space in which old and new tokens can be compared, for the strategies `focus` and `omp`.

Either the input embeddings of a donor model that has the new tokens, or vectors learned from how tokens stand beside
each other in a corpus. FOCUS (Dobler and de Melo, arXiv 2305.14481) takes fastText vectors for the second; its package
(deepfocus) needs a fastText build and was last released in 2023, so positive pointwise mutual information with a
truncated SVD (Levy and Goldberg, NeurIPS 2014) stands in here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from darumeru.errors import UserError
from lep.model.checkpoint import Checkpoint, gather_mixed
from lep.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PAIRS = 4_000_000


def corpus_vectors(
    vocabulary: Vocabulary, texts: Iterable[str], *, dim: int = 128, window: int = 5, seed: int = 0
) -> NDArray[np.float32]:
    """Unit vectors of tokens from a corpus, |V| x dim; rows of tokens that the corpus lacks are zero.

    ``PPMI(a, b) = max(0, log(p(a, b) / (p(a) p(b))))`` over pairs at most `window` tokens apart, both sides weighted by
    nearness (1/distance), then ``U sqrt(S)`` of its rank-`dim` SVD.

    Raises:
        UserError: the corpus is too small for that many dimensions.
    """
    from scipy.sparse.linalg import svds

    size = vocabulary.size
    counts = scipy.sparse.csr_array((size, size), dtype=np.float64)
    keys: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    waiting = 0

    def flush() -> scipy.sparse.csr_array:
        joined = np.concatenate(keys)
        fresh = scipy.sparse.coo_array((np.concatenate(values), (joined // size, joined % size)), shape=(size, size))
        return counts + fresh.tocsr()

    for text in texts:
        ids = np.array(vocabulary.tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)
        for distance in range(1, window + 1):
            left, right = ids[:-distance], ids[distance:]
            keys += [left * size + right, right * size + left]
            values += [np.full(2 * len(left), 1 / distance)]
            waiting += 2 * len(left)
        if waiting > _PAIRS:
            counts = flush()
            keys, values, waiting = [], [], 0
    if waiting:
        counts = flush()
    used = np.flatnonzero(counts.sum(axis=1))
    if len(used) <= dim + 1:
        raise UserError(f"The corpus uses only {len(used)} tokens; give more text (with --corpus) for this strategy.")
    part = scipy.sparse.coo_array(counts[used][:, used])
    total, sums = part.sum(), np.asarray(part.sum(axis=1)).ravel()
    information = np.log(part.data * total / (sums[part.coords[0]] * sums[part.coords[1]]))
    positive = information > 0
    matrix = scipy.sparse.csr_array(
        (information[positive], (part.coords[0][positive], part.coords[1][positive])), shape=part.shape
    )
    start = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    u, s, _ = svds(matrix, k=dim, v0=start)
    result = np.zeros((size, dim), dtype=np.float32)
    result[used] = _unit(u * np.sqrt(s))
    return result


def donor_vectors(vocabulary: Vocabulary, donor: Checkpoint, donor_vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Unit vectors of tokens from a donor model's input embedding, |V| x its dim; zero where it lacks the token."""
    import torch

    pairs = [
        (index, donor_vocabulary.by_bytes.get(vocabulary.bytes_of(index)))
        for index in vocabulary.strings
        if index not in vocabulary.added
    ]
    found = np.array([(a, b) for a, b in pairs if b is not None and b < donor.embeddings.rows], dtype=np.int64)
    if not len(found):
        raise UserError(f"The donor {donor.folder.name} has none of the tokens. Name a model with this tokenizer.")
    result = np.zeros((vocabulary.size, donor.embeddings.dim), dtype=np.float32)
    result[found[:, 0]] = _unit(gather_mixed(donor.embeddings.input, found[:, 1]).to(torch.float32).numpy())
    return result


def similarity_weights(wanted: NDArray[np.float32], known: NDArray[np.float32]) -> scipy.sparse.csr_array:
    """FOCUS: for each wanted vector, sparsemax over its cosines with the known ones; n x m, rows sum to 1.

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


def pursuit_weights(
    wanted: NDArray[np.float32], known: NDArray[np.float32], *, atoms: int = 64, block: int = 256
) -> scipy.sparse.csr_array:
    """Orthogonal matching pursuit: each wanted vector as a sparse sum of known ones; n x m, at most `atoms` a row.

    At each step the known vector most correlated with the residual joins, and all coefficients are solved again
    (Goddard and Fernandes Neto, arXiv 2506.06607, for its use on tokenizers).

    Args:
        wanted: n x dim unit vectors.
        known: m x dim unit vectors.
        atoms: k, at most dim.
        block: vectors worked on at a time.
    """
    import torch

    dictionary = torch.from_numpy(known)
    atoms = min(atoms, known.shape[1], known.shape[0])
    rows: list[scipy.sparse.csr_array] = []
    for start in range(0, len(wanted), block):
        target = torch.from_numpy(wanted[start : start + block])
        residual = target
        chosen = torch.zeros(len(target), 0, dtype=torch.long)
        weights = torch.zeros(len(target), 0, dtype=torch.float64)
        for _ in range(atoms):
            scores = (residual @ dictionary.T).abs()
            if chosen.shape[1]:
                scores.scatter_(1, chosen, -1.0)
            chosen = torch.cat([chosen, scores.argmax(dim=1, keepdim=True)], dim=1)
            picked = dictionary[chosen].double()
            gram = picked @ picked.transpose(1, 2)
            # A trace of ridge: near-copies of one vector would make the system singular.
            gram += 1e-8 * torch.eye(gram.shape[1], dtype=torch.float64)
            weights = torch.linalg.solve(gram, picked @ target.double()[:, :, None])[:, :, 0]
            residual = (target.double() - (weights[:, None, :] @ picked)[:, 0]).float()
            if float(residual.norm(dim=1).max()) < 1e-5:
                break
        index = np.repeat(np.arange(len(target)), chosen.shape[1])
        rows.append(
            scipy.sparse.csr_array(
                (weights.numpy().ravel(), (index, chosen.numpy().ravel())), shape=(len(target), len(known))
            )
        )
    return scipy.sparse.vstack(rows, format="csr")


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: NDArray[np.float32] = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return result
