"""The bootstrap draws of a task: the one function from which the record's intervals and the board's tests come.

Draws differ by their seed alone, and there are two rules for it:

* `seed_of_run`: the record's intervals. Tasks on one data set are drawn alike, so that the interval of their mean knows that
  they are dependent; another `--seed` gives other draws.
* `seed_of_documents`: whatever is paired. Equal documents are drawn alike in all runs, whatever their `--seed` and their task,
  so that two models are compared by subtracting their draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from darumeru.scoring.aggregate import Aggregate, Floats, Table
from darumeru.scoring.bootstrap import seed_of


def seed_of_run(seed: int, dataset: str, split: str) -> int:
    """Return the seed of the draws from which a record's intervals are made.

    Args:
        seed: of the run.
        dataset: the task's.
        split: that is tested.
    """
    return seed_of(seed, dataset, split)


def seed_of_documents(key: str) -> int:
    """Return the seed of draws that can be paired, from the documents' fingerprint."""
    return seed_of("board", key)


def draw(table: Table, aggregates: Mapping[str, Aggregate], weights: Iterable[Floats]) -> dict[str, Floats]:
    """Return the bootstrap values of a task's metrics.

    Args:
        table: the scores of its N documents.
        aggregates: how each metric is aggregated.
        weights: blocks of shape (at most B, N), B in all: how often each document was drawn (`bootstrap.resample`).

    Returns:
        (B,) values for each metric.
    """
    parts: dict[str, list[Floats]] = {name: [] for name in aggregates}
    for block in weights:
        for name, aggregate in aggregates.items():
            parts[name].append(aggregate(table, name, block))
    return {name: np.concatenate(values) for name, values in parts.items()}


def mean_of(draws: Mapping[str, Floats], primary: Iterable[str]) -> Floats:
    """Return the (B,) bootstrap values of a task's score, the mean of its primary metrics."""
    values: Floats = np.mean([draws[name] for name in primary], axis=0)
    return values
