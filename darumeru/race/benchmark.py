"""What a race asks and in which order, known before any answer: units, weights, rounds.

Only a score that is a sum over documents can be estimated from some of them without a bias. A task whose score is a mean of
several metrics counts with those that are: accuracy, without macro-F1 or Matthews correlation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from darumeru.errors import UserError
from darumeru.scoring.aggregate import Aggregate, Floats, Table
from darumeru.scoring.bootstrap import seed_of
from darumeru.scoring.linear import document_weights

MOST = 4
"""Units of a task in a round at most. More would spend fewer tokens on the dear tasks, and come late to the first look."""

LEAST = 32
"""Documents between two looks at least, and"""

GROWTH = 0.05
"""at least this share of those before: engines answer many documents faster than few."""

Round = dict[str, list[int]]
"""Task → its units in a round, in the order in which they are drawn; none where all were asked before."""


@dataclass(frozen=True)
class RacedTask:
    """A task as a sum over units."""

    name: str
    metrics: tuple[str, ...]
    """Their mean is a document's value."""
    left_out: tuple[str, ...]
    """The metrics of its score that are no sums over documents."""
    units: tuple[tuple[int, ...], ...]
    """Documents of each unit: one, or those of an exam."""
    weights: Floats
    """(units) sum to one."""

    @property
    def documents(self) -> int:
        """Return how many documents it has."""
        return sum(map(len, self.units))

    def order(self, seed: int) -> list[int]:
        """Return its units in a random order: the next is drawn with a probability proportional to its weight."""
        # The least of exponential times with rates w is drawn so (Efraimidis and Spirakis 2006).
        times = np.random.default_rng(seed_of("race", seed, self.name)).exponential(size=len(self.weights))
        return [int(i) for i in np.argsort(times / self.weights, kind="stable")]


def raced_task(
    name: str, documents: Sequence[int], table: Table, metrics: Mapping[str, Aggregate], primary: Sequence[str]
) -> RacedTask:
    """Return a task as it counts in a race.

    Args:
        name: of the task.
        documents: their indices.
        table: their clusters and strata.
        metrics: how each metric is aggregated.
        primary: the metrics whose mean is the task's score.

    Raises:
        UserError: no metric is a sum over documents.
    """
    found = {m: document_weights(metrics[m], table) if m in metrics else None for m in primary}
    if not any(w is not None for w in found.values()) and "acc" in metrics:
        found["acc"] = document_weights(metrics["acc"], table)
    weights = next((w for w in found.values() if w is not None), None)
    if weights is None:
        raise UserError(
            f"Task '{name}' cannot be raced: its score ({' + '.join(primary)}) is no sum over its documents. "
            "Leave it out with --tasks."
        )
    used = tuple(m for m, w in found.items() if w is not None and np.allclose(w, weights))
    left_out = tuple(m for m in primary if m not in used)
    if abs(weights.sum() - 1) < 1e-9:
        return RacedTask(name, used, left_out, tuple((d,) for d in documents), weights)
    # The values of an exam's items add up to its grade: exams are drawn.
    members: dict[int, list[int]] = {}
    for place, cluster in enumerate(table.clusters):
        members.setdefault(int(cluster), []).append(place)
    if not np.allclose(weights * len(members), 1):
        raise UserError(f"Task '{name}' cannot be raced: the weights of its documents do not sum to one.")
    units = tuple(tuple(documents[place] for place in places) for places in members.values())
    return RacedTask(name, used, left_out, units, np.full(len(units), 1 / len(units)))


def units_a_round(tasks: Sequence[RacedTask], cost: Mapping[str, float]) -> dict[str, int]:
    """Return how many units of each task a round asks.

    For a given cost the mean over tasks is most exact if a task is asked in proportion to σ / √cost; of a unit's deviation σ is
    known beforehand that it falls as 1/√documents.

    Args:
        tasks: of the race.
        cost: of a document of each task, in tokens.
    """
    size = {t.name: t.documents / len(t.units) for t in tasks}
    worth = {t.name: 1 / math.sqrt(size[t.name] * max(cost[t.name] * size[t.name], 1.0)) for t in tasks}
    least = min(worth.values())
    return {name: min(MOST, max(1, round(w / least))) for name, w in worth.items()}


def round_sizes(tasks: Sequence[RacedTask], cost: Mapping[str, float]) -> list[dict[str, int]]:
    """Return how many units of each task the rounds ask, until none is left; all rounds cost about the same.

    Args:
        tasks: of the race.
        cost: of a document of each task, in tokens.
    """
    each = units_a_round(tasks, cost)
    price = {t.name: each[t.name] * cost[t.name] * t.documents / len(t.units) for t in tasks}
    left = {t.name: len(t.units) for t in tasks}
    rounds = []
    while any(left.values()):
        going = [n for n in left if left[n]]
        times = int(sum(price.values()) / sum(price[n] for n in going))
        rounds.append({n: min(left[n], each[n] * times) for n in left})
        left = {n: left[n] - rounds[-1][n] for n in left}
    return rounds


def rounds_of(tasks: Sequence[RacedTask], cost: Mapping[str, float], seed: int) -> list[Round]:
    """Return the rounds of a race, the last of which leaves nothing to ask.

    Args:
        tasks: of the race.
        cost: of a document of each task, in tokens.
        seed: of the orders.
    """
    orders = {t.name: iter(t.order(seed)) for t in tasks}
    return [{n: list(islice(orders[n], size)) for n, size in sizes.items()} for sizes in round_sizes(tasks, cost)]


def blocks_of(documents: Sequence[int]) -> list[slice]:
    """Return which rounds are asked together before one looks.

    Args:
        documents: of each round.
    """
    found, start, before, since = [], 0, 0, 0
    for number, count in enumerate(documents, start=1):
        since += count
        if since >= max(LEAST, GROWTH * before) or number == len(documents):
            found.append(slice(start, number))
            start, before, since = number, before + since, 0
    return found
