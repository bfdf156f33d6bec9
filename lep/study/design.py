"""Which cells come first, which a budget leaves out, and which designs go further in successive halving."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from darumeru.files import fingerprint
from darumeru.scoring.aggregate import Floats

_PRIOR = {0: 1e-3, 1: 1e-2, 2: 1.0}
"""Precision of what is believed of an effect before: that of the mean and main effects may be large, interactions are smaller."""


def informative_order(points: Sequence[Mapping[str, Any]], costs: Sequence[float]) -> list[int]:
    """Return the places of the points of a design in the order in which they tell most for their cost.

    Bayesian D-optimality, greedily (Chaloner and Verdinelli 1995): the next point x is the one with the largest
    log(1 + x'Vx) / cost, where V is the covariance of mean, main effects and two-factor interactions after the points before
    it. A point that was measured already tells little more, so that repetitions come last.

    Args:
        points: factor → level of each.
        costs: of each, above 0.
    """
    rows, precision = _model_rows(points)
    covariance = np.diag(1 / precision)
    gains = np.einsum("ij,jk,ik->i", rows, covariance, rows)
    left: list[int] = list(range(len(points)))
    order: list[int] = []
    relative = np.array(costs) / np.mean(costs)
    while left:
        told = np.round(np.log1p(gains) / relative, 9)  # equal ones in their order, whatever rounding makes of them
        best = max(left, key=lambda i: (told[i], -i))
        order.append(best)
        left.remove(best)
        direction = covariance @ rows[best]
        scale = 1 + gains[best]
        gains = gains - (rows @ direction) ** 2 / scale
        covariance = covariance - np.outer(direction, direction) / scale
    return order


def _model_rows(points: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
    """Return a row of the model for each point (mean, main effects, two-factor interactions), and each column's precision."""
    factors: list[Floats] = []
    for name in points[0] if points else ():
        keys = [fingerprint(point[name]) for point in points]
        levels = list(dict.fromkeys(keys))
        if len(levels) > 1:
            factors.append(np.array([[float(key == level) for level in levels] for key in keys]))
    columns = [np.ones((len(points), 1)), *factors]
    precision = [_PRIOR[0], *(_PRIOR[1] for factor in factors for _ in range(factor.shape[1]))]
    for one, other in itertools.combinations(factors, 2):
        both = np.einsum("ij,ik->ijk", one, other).reshape(len(points), -1)
        columns.append(both)
        precision += [_PRIOR[2]] * both.shape[1]
    return np.concatenate(columns, axis=1), np.array(precision)


def affordable(
    order: Sequence[int], hours: Sequence[float], budget: float, workers: int
) -> tuple[list[int], list[int]]:
    """Return which of the cells are begun within a budget, and which are left out; each is begun where it would end in time.

    Args:
        order: places of the cells.
        hours: of each cell, by its place.
        budget: hours of the whole.
        workers: cells beside one another.
    """
    busy, taken, left = [0.0] * workers, [], []
    for place in order:
        free = int(np.argmin(busy))
        if busy[free] + hours[place] <= budget:
            busy[free] += hours[place]
            taken.append(place)
        else:
            left.append(place)
    return taken, left


def better_half(scores: Mapping[str, float], always: Collection[str] = ()) -> list[str]:
    """Return the designs that go further in successive halving: the better half (lower is better), rounded up, and `always`.

    Jamieson and Talwalkar (2016), with a training of its own for each length: a learning rate that has fallen to 0 cannot be
    taken up again. Those that failed are not among the scores and go no further.

    >>> better_half({"a": 1.0, "b": 3.0, "c": 2.0}, always={"b"})
    ['a', 'c', 'b']
    """
    ordered = sorted((name for name in scores if name not in always), key=lambda name: (scores[name], name))
    return [*ordered[: (len(ordered) + 1) // 2], *(name for name in scores if name in always)]
