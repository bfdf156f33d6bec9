"""Confidence intervals by resampling what is independent: clusters of documents, within strata."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from darumeru.scoring.aggregate import Floats, Ints, Table

RESAMPLES = 1000
LEVEL = 0.95


def seed_of(*parts: object) -> int:
    """Return a seed for a random generator from what identifies a draw; equal parts, equal draws."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def resample(clusters: Ints, strata: Ints, resamples: int, seed: int, chunk: int = 100) -> Iterator[Floats]:
    """Draw clusters with replacement, as many from each stratum as it has.

    Args:
        clusters: (N,) number of each document's cluster.
        strata: (N,) number of each document's stratum; a cluster lies in one stratum (that of its first document).
        resamples: how many draws.
        seed: of the draws.
        chunk: draws a block, which bounds the memory.

    Yields:
        Weights of shape (at most chunk, N): how often each document was drawn.
    """
    rng = np.random.default_rng(seed)
    first = np.unique(clusters, return_index=True)[1]
    stratum = strata[first]
    members = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = np.zeros((count, len(first)))
        for member in members:
            share = np.full(len(member), 1 / len(member))
            drawn[:, member] = rng.multinomial(len(member), share, size=count)
        yield drawn[:, clusters]


def units(table: Table) -> int:
    """Return the number of independent units."""
    return len(np.unique(table.clusters))


def interval(values: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values."""
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
