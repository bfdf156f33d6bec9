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
from darumeru.scoring.interval import FLAT, LEVEL, Bounds, degrees_of_sum, quantile, student, wilson

POWER = 0.8
FEW = 20
"""Degrees of freedom below which a covariance is hardly known."""
SAME = 1e-7
"""A standard error below this is what rounding leaves of two equal variances."""


@dataclass(frozen=True)
class Difference:
    """A paired difference, B minus A."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    """Two-sided; None where nothing can be resampled."""
    test: str
    """`mid-p`: McNemar's mid-p test on documents answered differently; `bootstrap`: paired bootstrap; or `none`."""
    units: int
    smallest: float | None
    """The smallest difference that this many documents show with 80 % power at the 5 % level; None where none differ."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as a JSON object."""
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


def mid_p_test(wins: int, losses: int) -> float:
    """Return McNemar's two-sided mid-p value: the exact one less the probability of what was seen.

    The exact test's error rate lies far below its level with few differences; that of mid-p is near it, and hardly ever above
    (Fagerland, Lydersen and Laake 2013).

    >>> round(mid_p_test(1, 7), 3)
    0.039
    """
    from scipy.stats import binom

    if wins == losses:
        return 1.0
    return sign_test(wins, losses) - float(binom.pmf(min(wins, losses), wins + losses, 0.5))


def paired_shares(wins: int, losses: int, count: int) -> Bounds:
    """Return the interval of a difference of two shares on the same documents (Bonett and Price 2012).

    Wald's, with one document more that was won and one that was lost: it has no width of 0.

    Args:
        wins: documents that only the second model has right.
        losses: documents that only the first has right.
        count: of all documents.
    """
    won, lost = (wins + 1) / (count + 2), (losses + 1) / (count + 2)
    half = quantile() * math.sqrt((won + lost - (won - lost) ** 2) / (count + 2))
    return max(won - lost - half, -1.0), min(won - lost + half, 1.0)


def degrees_of_mean(draws: Sequence[Floats], dfs: Sequence[float]) -> float:
    """Return Welch's degrees of freedom of a mean of tasks.

    Args:
        draws: (B,) of each task, or of its difference.
        dfs: of each task.
    """
    return degrees_of_sum([float(np.var(d, ddof=1)) for d in draws], dfs)


def bootstrap_test(value: float, draws: Floats, units: int, df: float | None = None) -> float:
    """Return the two-sided p-value of a difference from its paired bootstrap draws: Student's t with the draws' standard error.

    Counting draws beyond 0 could not go below 2 / (B + 1), which no correction for many models would survive; the standard
    error is known well from 1,000 draws. Degrees of freedom: `df`, or independent units - 1. Where every draw equals the
    difference (no document answered differently, or all by the same amount) p is 1 for a difference of 0. Otherwise it is that
    of the sign test with all units on one side.
    """
    from scipy.stats import t

    error = float(np.std(draws, ddof=1))
    if error < FLAT:
        return 1.0 if abs(value) < FLAT else sign_test(units, 0)
    return float(2 * t.sf(abs(value) / error, df=df or max(units - 1, 1)))


def smallest_difference(draws: Floats) -> float:
    """Return the difference that is found with 80 % power at the 5 % level: (z_0.975 + z_0.8) times the standard error.

    Cohen (1988), for a normal statistic; the standard error is that of the paired bootstrap draws. 0 where the models never
    differ, which says nothing of what could be found.
    """
    from scipy.stats import norm

    factor = float(norm.ppf(1 - (1 - LEVEL) / 2) + norm.ppf(POWER))
    error = float(np.std(draws, ddof=1))
    return factor * error if error > FLAT else 0.0


def difference(
    a: float, b: float, draws_a: Floats | None, draws_b: Floats | None, units: int, df: float | None = None
) -> Difference:
    """Return the paired difference b - a, with Student's interval.

    Where no unit differs, the interval is Wilson's of as many units between -1 and 1: it is not certain that none ever will.

    Args:
        a: score of the first model.
        b: score of the second.
        draws_a: (B,) bootstrap values of the first, on the same drawn documents as `draws_b`.
        draws_b: (B,) of the second.
        units: independent units that were drawn.
        df: degrees of freedom of the draws; units - 1 without it.
    """
    if draws_a is None or draws_b is None:
        return Difference(b - a, None, None, None, "none", units, None)
    draws = draws_b - draws_a
    low, high = _bounds(b - a, float(np.std(draws, ddof=1)), units, df or max(units - 1, 1))
    p = bootstrap_test(b - a, draws, units, df)
    return Difference(b - a, low, high, p, "bootstrap", units, smallest_difference(draws) or None)


def _bounds(value: float, error: float, units: int, df: float) -> tuple[float | None, float | None]:
    if error >= FLAT:
        return student(value, error, df)
    if abs(value) > 1:
        return None, None
    low, high = wilson((value + 1) / 2, units)
    return 2 * low - 1, 2 * high - 1


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down p-values (Holm 1979), which keep the chance of any false finding of a family at the level.

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


def shared_ranks(values: Floats, draws: Floats, units: int, level: float = LEVEL, df: float | None = None) -> list[int]:
    """Return ranks, 1 the best; a model shares the rank of the best from which it cannot be told apart.

    From the top: the best model that has no rank yet opens a rank. All below it are tested against it (paired bootstrap); the
    rank ends before the first that is significantly worse. Which model is the best was seen in the same scores, so the largest of
    the differences is held against what the largest would be if all models were equal (`_critical`). A rank's number is one more
    than the number of models in better ranks (1, 1, 3).

    Args:
        values: (M,) scores.
        draws: (M, B) bootstrap values, column b the same documents for all models.
        units: independent units that were drawn.
        level: of confidence.
        df: degrees of freedom of the draws; units - 1 without it.

    Returns:
        M ranks, in the order of `values`.
    """
    from scipy.special import ndtri, stdtr

    order = np.argsort(-values, kind="stable")
    centred = draws - draws.mean(axis=1, keepdims=True)
    together = centred @ centred.T / (centred.shape[1] - 1)
    variance = np.diag(together)
    errors = np.sqrt(np.maximum(variance[:, None] + variance - 2 * together, 0.0))
    flat = errors < SAME
    ranks = [0] * len(values)
    start = 0
    while start < len(order):
        best, rest = order[start], order[start + 1 :]
        gaps = values[best] - values[rest]
        same = flat[best, rest]
        # As a normal quantile, which the draws' own statistics are like.
        t = gaps / np.where(same, 1.0, errors[best, rest])
        z = -ndtri(stdtr(df or max(units - 1, 1), -t))
        left = order[start:]
        worse = z > _critical(together[np.ix_(left, left)], errors[np.ix_(left, left)], level, df or units - 1)
        sure = sign_test(units, 0) * len(rest) < 1 - level
        worse[same] = (gaps[same] > FLAT) & sure
        size = 1 + (int(np.argmax(worse)) if worse.any() else len(rest))
        for i in order[start : start + size]:
            ranks[i] = start + 1
        start += size
    return ranks


def _critical(together: Floats, errors: Floats, level: float, df: float) -> float:
    """Return how many standard errors the worst of equal models lies below the best of them, at most in `level` of all cases.

    Normal numbers with the covariance of the draws stand for scores of equal models; the best of them is found anew each time, as
    it is in the scores (Tukey's studentised range, for models whose scores move together). With few degrees of freedom that
    covariance is hardly known, and the level is shared out among all pairs (Bonferroni).

    Args:
        together: (M, M) covariance of the draws.
        errors: (M, M) standard errors of the differences.
        level: of confidence.
        df: degrees of freedom of the draws.
    """
    from scipy.special import ndtri

    count = len(together)
    if count < 2:
        return math.inf
    if df < FEW:
        return float(-ndtri((1 - level) / (count * (count - 1))))
    values, vectors = np.linalg.eigh(together)
    factor = vectors * np.sqrt(np.maximum(values, 0.0))
    equal = factor @ np.random.default_rng(0).normal(size=(count, 2000))
    top = equal.argmax(axis=0)
    gaps, between = equal.max(axis=0) - equal, errors[:, top]
    worst = np.divide(gaps, between, out=np.zeros_like(gaps), where=between >= SAME).max(axis=0)
    return float(np.quantile(worst, level))


def unpaired_interval(value: float, draws_a: Floats, draws_b: Floats) -> tuple[float, float]:
    """Return the interval of b - a if the documents were not the same: normal, with the sum of both variances."""
    half = 1.959963984540054 * math.sqrt(float(np.var(draws_a, ddof=1)) + float(np.var(draws_b, ddof=1)))
    return value - half, value + half
