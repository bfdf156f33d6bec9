"""A space in which old and new tokens can be compared, for the strategies `focus` and `omp`.

Either the input embeddings of a donor model that has the new tokens, or vectors learned from how tokens stand beside
each other in a corpus. FOCUS (Dobler and de Melo, arXiv 2305.14481) takes fastText vectors for the second; its package
(deepfocus) needs a fastText build and was last released in 2023, so positive pointwise mutual information with a
truncated SVD (Levy and Goldberg, NeurIPS 2014) stands in here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from darumeru.data.texts import read_texts
from darumeru.errors import UserError
from lep.initialisation.rows import NewRows, with_rows
from lep.model.checkpoint import Checkpoint, gather_mixed, open_checkpoint
from lep.tokenizer.transfer import Transfer
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
    result[used] = unit_rows(u * np.sqrt(s))
    return result


def donor_vectors(
    vocabulary: Vocabulary, donor: Checkpoint, donor_vocabulary: Vocabulary, *, head: bool = False
) -> NDArray[np.float32]:
    """Rows of tokens in a donor model's input embedding (or head, where it has one of its own), |V| x its dim.

    Rows of tokens that the donor lacks are zero.

    Raises:
        UserError: it lacks all of them.
    """
    import torch

    pairs = [
        (index, donor_vocabulary.same_token(vocabulary, index))
        for index in vocabulary.strings
        if index not in vocabulary.added
    ]
    found = np.array([(a, b) for a, b in pairs if b is not None and b < donor.embeddings.rows], dtype=np.int64)
    if not len(found):
        raise UserError(f"The donor {donor.folder.name} has none of the tokens. Name a model with this tokenizer.")
    source = donor.embeddings.head if head and donor.embeddings.head is not None else donor.embeddings.input
    result = np.zeros((vocabulary.size, donor.embeddings.dim), dtype=np.float32)
    result[found[:, 0]] = gather_mixed(source, found[:, 1]).to(torch.float32).numpy()
    return result


def token_vectors(
    new: Vocabulary, corpus: Sequence[str | Path], donor: str | Path | None, field: str, *, head: bool = False
) -> NDArray[np.float32]:
    """Return vectors of the new vocabulary's tokens, |V| x dim: the donor's or, without one, learned on the corpus.

    Args:
        new: the new vocabulary.
        corpus: texts.
        donor: a model.
        field: text field of the corpus.
        head: the rows of the donor's head in place of its input embedding's.

    Raises:
        UserError: there is neither a corpus nor a donor.
    """
    if donor is not None:
        checkpoint = open_checkpoint(donor)
        return donor_vectors(new, checkpoint, Vocabulary.load(checkpoint.folder), head=head)
    if not corpus:
        raise UserError("This strategy compares tokens; give texts with --corpus, or a model with --donor.")
    return corpus_vectors(new, read_texts(corpus, field=field))


def by_similarity(
    transfer: Transfer,
    vectors: NDArray[np.float32],
    weigh: Callable[[NDArray[np.float32], NDArray[np.float32]], scipy.sparse.csr_array],
) -> NewRows:
    """Return T with the rows of new tokens that have a vector replaced by sums over shared tokens that have one.

    Args:
        transfer: T of the mean initialisation; new tokens without a vector keep its rows.
        vectors: of the new vocabulary's tokens, |V| x dim; zero for tokens that have none.
        weigh: gives for n wanted and m known vectors their weights, n x m.

    Raises:
        UserError: no shared token has a vector.
    """
    known = np.zeros(transfer.matrix.shape[0], dtype=bool)
    known[: len(vectors)] = np.linalg.norm(vectors, axis=1) > 0
    shared = np.flatnonzero(transfer.copied & known)
    wanted = np.flatnonzero(transfer.tokens & ~transfer.copied & known)
    if not len(shared):
        raise UserError("No token that the vocabularies share occurs in the corpus or donor; give other texts.")
    if not len(wanted):
        return NewRows(transfer, measures={"by_similarity": 0})
    weights = weigh(vectors[wanted], vectors[shared])
    sources = transfer.matrix.indices[transfer.matrix.indptr[shared]]
    columns = scipy.sparse.csr_array(
        (np.ones(len(shared)), (np.arange(len(shared)), sources)), shape=(len(shared), transfer.matrix.shape[1])
    )
    rows = scipy.sparse.csr_array(weights @ columns)
    measures = {
        "by_similarity": len(wanted),
        "shared_tokens": len(shared),
        "mean_sources": float(np.diff(rows.indptr).mean()),
    }
    return NewRows(with_rows(transfer, wanted, rows), measures=measures)


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return rows of length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    result: NDArray[np.float32] = (rows / np.maximum(norms, 1e-12)).astype(np.float32)
    return result
