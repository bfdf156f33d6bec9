"""Resampling of what is independent: clusters of documents, within strata; unbiased for few of them too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from darumeru.scoring.aggregate import Floats, Ints, Table, group_strata

RESAMPLES = 1000


def seed_of(*parts: object) -> int:
    """Return a seed for a random generator from what identifies a draw; equal parts, equal draws."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big")


def _units(clusters: Ints, strata: Ints) -> tuple[Ints, Ints]:
    """Return the group of strata of each unit, and how many units each group has."""
    first = np.unique(clusters, return_index=True)[1]
    group = group_strata(clusters, strata)[strata[first]]
    return group, np.bincount(group)


def scale(clusters: Ints, strata: Ints) -> Floats:
    """Return (N,) the factors that make weights of `draw_counts`: n / (n - 1), of n units in a document's group of strata."""
    group, size = _units(clusters, strata)
    factor = size / np.maximum(size - 1, 1)
    weights: Floats = factor[group][clusters]
    return weights


def draw_counts(clusters: Ints, strata: Ints, resamples: int, seed: int, chunk: int = 100) -> Iterator[Ints]:
    """Draw clusters with replacement, from each group of strata one fewer than it has.

    Args:
        clusters: (N,) number of each document's cluster.
        strata: (N,) number of each document's stratum; a cluster lies in one stratum (that of its first document).
        resamples: how many draws.
        seed: of the draws.
        chunk: draws a block, which bounds the memory.

    Yields:
        Counts of shape (at most chunk, N): how often each document was drawn.
    """
    rng = np.random.default_rng(seed)
    group, size = _units(clusters, strata)
    members = [np.flatnonzero(group == g) for g in range(len(size))]
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = np.ones((count, len(group)), dtype=np.int64)
        for member in members:
            if len(member) > 1:
                share = np.full(len(member), 1 / len(member))
                drawn[:, member] = rng.multinomial(len(member) - 1, share, size=count)
        yield drawn[:, clusters]


def resample(clusters: Ints, strata: Ints, resamples: int, seed: int, chunk: int = 100) -> Iterator[Floats]:
    """Draw weights by the rescaled bootstrap (Rao and Wu 1988): n - 1 of a stratum's n units, each counting n / (n - 1).

    The variance of a mean over such draws is its unbiased estimate s² / n; drawing n of n would give (n - 1) / n of that, half of
    it with two units a stratum. Strata of a single unit are drawn from together (`group_strata`).

    Args:
        clusters: (N,) number of each document's cluster.
        strata: (N,) number of each document's stratum; a cluster lies in one stratum (that of its first document).
        resamples: how many draws.
        seed: of the draws.
        chunk: draws a block, which bounds the memory.

    Yields:
        Weights of shape (at most chunk, N).
    """
    factor = scale(clusters, strata)
    for counts in draw_counts(clusters, strata, resamples, seed, chunk):
        yield counts * factor


def units(table: Table) -> int:
    """Return the number of independent units."""
    return len(np.unique(table.clusters))


def degrees_of_freedom(table: Table) -> float:
    """Return those of the standard error of draws, of units with a common variance; 1 or more.

    Without strata n - 1. With strata, whose units count unequally in a mean of strata, (Σ v)² / Σ v² / (n_h - 1) with the
    variance v of a group's part, which is its units' squared weights (Satterthwaite 1946): a hundred questions out of 57
    subjects know their standard error as well as 30 equal ones. Groups of one unit have no spread and do not count.
    """
    group, size = _units(table.clusters, table.strata)
    weight = (table.shares / np.bincount(table.strata, minlength=len(table.shares)))[table.strata]
    part = np.bincount(group, weights=np.bincount(table.clusters, weights=weight) ** 2)[size > 1]
    below = float((part**2 / (size[size > 1] - 1)).sum())
    return max(float(part.sum()) ** 2 / below, 1.0) if below > 0 else 1.0
