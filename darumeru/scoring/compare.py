"""Comparing models that answered the same documents: paired differences, tests, correction for many tests, shared ranks.

Two models on the same documents agree on the easy and on the hard ones, so their scores move together. A paired bootstrap
draws the same documents for both and looks at the difference; its interval is narrower than two separate ones by what the
models have in common.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from darumeru.scoring.aggregate import Floats
from darumeru.scoring.bootstrap import LEVEL, interval

POWER = 0.8


@dataclass(frozen=True)
class Difference:
    """A paired difference, B minus A."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; None where nothing can be resampled."""
    test: str
    """`sign`: exact sign test on documents answered differently (McNemar); `bootstrap`: paired bootstrap; or `none`."""
    units: int
    smallest: float | None
    """The smallest difference that this many documents show with 80 % power at the 5 % level; None where none differ."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def sign_test(wins: int, losses: int) -> float:
    """Return the exact two-sided p-value of `wins` against `losses` if both were as likely: 2 P(X ≤ min), X ~ Binomial(n, ½).

    On documents that are right or wrong this is McNemar's exact test: documents on which both models agree say nothing.

    >>> round(sign_test(9, 1), 6)
    0.021484
    """
    from scipy.stats import binom

    if wins + losses == 0:
        return 1.0
    return float(min(1.0, 2 * binom.cdf(min(wins, losses), wins + losses, 0.5)))


def bootstrap_test(value: float, draws: Floats, units: int) -> float:
    """Return the two-sided p-value of a difference from its paired bootstrap draws: Student's t with the draws' standard error.

    Counting draws beyond 0 could not go below 2 / (B + 1), which no correction for many models would survive; the standard
    error is known well from 1,000 draws. Degrees of freedom: independent units - 1. Where every draw equals the difference
    (no document answered differently, or all by the same amount) p is 1 for a difference of 0. Otherwise it is that of the
    sign test with all units on one side.
    """
    from scipy.stats import t

    error = float(np.std(draws, ddof=1))
    if error < 1e-12:
        return 1.0 if abs(value) < 1e-12 else sign_test(units, 0)
    return float(2 * t.sf(abs(value) / error, df=max(units - 1, 1)))


def smallest_difference(draws: Floats) -> float:
    """Return the difference that is found with 80 % power at the 5 % level: (z_0.975 + z_0.8) times the standard error.

    Cohen (1988), for a normal statistic; the standard error is that of the paired bootstrap draws. 0 where the models never
    differ, which says nothing of what could be found.
    """
    from scipy.stats import norm

    factor = float(norm.ppf(1 - (1 - LEVEL) / 2) + norm.ppf(POWER))
    error = float(np.std(draws, ddof=1))
    return factor * error if error > 1e-12 else 0.0


def difference(a: float, b: float, draws_a: Floats | None, draws_b: Floats | None, units: int) -> Difference:
    """Return the paired difference b - a.

    Args:
        a: score of the first model.
        b: score of the second.
        draws_a: (B,) bootstrap values of the first, on the same drawn documents as `draws_b`.
        draws_b: (B,) of the second.
        units: independent units that were drawn.
    """
    if draws_a is None or draws_b is None:
        return Difference(b - a, None, None, None, "none", units, None)
    draws = draws_b - draws_a
    low, high = interval(draws)
    p = bootstrap_test(b - a, draws, units)
    return Difference(b - a, low, high, p, "bootstrap", units, smallest_difference(draws) or None)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979): p-values that keep the chance of any false finding of a family at the level.

    The i-th smallest of m is multiplied by m - i + 1, then none may lie below a smaller one's.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted = [0.0] * len(p)
    highest = 0.0
    for position, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - position) * p[i]))
        adjusted[i] = highest
    return adjusted


def shared_ranks(values: Floats, draws: Floats, units: int, level: float = LEVEL) -> list[int]:
    """Ranks, 1 the best; a model shares the rank of the best from which it cannot be told apart.

    From the top: the best model that has no rank yet opens a rank. All below it are tested against it (paired bootstrap,
    Holm-corrected over them); the rank ends before the first that is significantly worse. A rank's number is one more than the
    number of models in better ranks (1, 1, 3).

    Args:
        values: (M,) scores.
        draws: (M, B) bootstrap values, column b the same documents for all models.
        units: independent units that were drawn.
        level: of confidence.

    Returns:
        M ranks, in the order of `values`.
    """
    from scipy.stats import t

    order = np.argsort(-values, kind="stable")
    ranks = [0] * len(values)
    start = 0
    while start < len(order):
        best, rest = order[start], order[start + 1 :]
        gaps = values[best] - values[rest]
        errors = np.std(draws[best] - draws[rest], axis=1, ddof=1) if len(rest) else np.zeros(0)
        flat = errors < 1e-12
        p = 2 * t.sf(gaps / np.where(flat, 1.0, errors), df=max(units - 1, 1))
        p[flat] = [1.0 if g < 1e-12 else sign_test(units, 0) for g in gaps[flat]]
        worse = np.asarray(holm(p.tolist())) < 1 - level
        size = 1 + (int(np.argmax(worse)) if worse.any() else len(rest))
        for i in order[start : start + size]:
            ranks[i] = start + 1
        start += size
    return ranks


def unpaired_interval(value: float, draws_a: Floats, draws_b: Floats) -> tuple[float, float]:
    """Return the interval of b - a if the documents were not the same: normal, with the sum of both variances."""
    half = 1.959963984540054 * math.sqrt(float(np.var(draws_a, ddof=1)) + float(np.var(draws_b, ddof=1)))
    return value - half, value + half
