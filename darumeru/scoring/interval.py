"""Formulas of confidence intervals, quantiles and degrees of freedom; `estimate` decides which one a score gets."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from darumeru.scoring.aggregate import Floats

LEVEL = 0.95
FLAT = 1e-9
"""A standard error below this is none: all resampled scores are equal."""

Bounds = tuple[float, float]


def quantile(level: float = LEVEL, df: float = math.inf) -> float:
    """Return the two-sided quantile of Student's t; the normal one for infinite degrees of freedom.

    >>> round(quantile(), 3), round(quantile(df=4), 3)
    (1.96, 2.776)
    """
    from scipy.special import ndtri, stdtrit

    upper = (1 + level) / 2
    return float(ndtri(upper) if math.isinf(df) else stdtrit(df, upper))


def wilson(value: float, count: float, level: float = LEVEL) -> Bounds:
    """Return the score interval of a share of `count` units that are right or wrong (Wilson 1927).

    It has no width of 0: of n units that are all right, the lower bound is n / (n + z²).

    >>> tuple(round(x, 4) for x in wilson(81 / 263, 263))
    (0.2553, 0.3662)
    """
    square = quantile(level) ** 2
    centre = (value + square / (2 * count)) / (1 + square / count)
    half = math.sqrt(square * (value * (1 - value) + square / (4 * count)) / count) / (1 + square / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def student(value: float, error: float, df: float, level: float = LEVEL) -> Bounds:
    """Return value ± t · standard error."""
    half = quantile(level, df) * error
    return value - half, value + half


def log_odds(value: float, error: float, df: float, limits: Bounds = (0.0, 1.0), level: float = LEVEL) -> Bounds:
    """Return Student's interval of the log-odds of where a value lies between its limits, turned back.

    With p = (value - lower) / (upper - lower) and its standard error s: logit p ± t · s / (p (1 - p)). Bounds stay within the
    limits and are skewed as scores near a limit are. For limits of -1 and 1 this is Fisher's z.

    Args:
        value: strictly between the limits.
        error: its standard error.
        df: degrees of freedom.
        limits: of all possible values.
        level: of confidence.
    """
    lower, width = limits[0], limits[1] - limits[0]
    p = (value - lower) / width
    half = quantile(level, df) * error / width / (p * (1 - p))
    low, high = (1 / (1 + (1 - p) / p * math.exp(min(way * half, 700.0))) for way in (1, -1))
    return lower + width * low, lower + width * high


def log_scale(value: float, error: float, df: float, level: float = LEVEL) -> Bounds:
    """Return Student's interval of the logarithm of a value that is never 0, turned back: value · exp(± t · error / |value|)."""
    half = min(quantile(level, df) * error / abs(value), 700.0)
    low, high = sorted((value * math.exp(-half), value * math.exp(half)))
    return low, high


def percentiles(draws: Floats, df: float = math.inf, level: float = LEVEL) -> Bounds:
    """Return the percentile interval of draws, widened for few units: tails of Φ(-t) each (Hesterberg 2015)."""
    from scipy.special import ndtr

    tail = float(ndtr(-quantile(level, df)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def degrees_of_sum(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of independent parts: (Σ v)² / Σ v² / df (Welch 1947, Satterthwaite 1946).

    Args:
        variances: of the parts.
        dfs: with which each was estimated.
    """
    below = sum(v**2 / df for v, df in zip(variances, dfs, strict=True))
    return sum(variances) ** 2 / below if below > 0 else float(min(dfs))


def square_and_add(value: float, down: Floats, up: Floats, correlation: Floats) -> Bounds:
    """Return the interval of a sum from the intervals of its parts (Newcombe 1998, method 10; Zou and Donner 2008).

    value - √(Σ_ij r_ij d_i d_j) and value + √(Σ_ij r_ij u_i u_j): each part keeps its own, possibly skewed, interval.

    Args:
        value: the sum.
        down: (K,) how far each part's lower bound lies below it; of a part that is subtracted, its upper bound above it.
        up: (K,) the same for the other side.
        correlation: (K, K) of the parts' estimates.
    """
    low, high = (math.sqrt(max(float(side @ correlation @ side), 0.0)) for side in (down, up))
    return value - low, value + high
