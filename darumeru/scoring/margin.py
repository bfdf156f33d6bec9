"""One-sided tests of an estimate against a bound, as non-inferiority trials make them, and the documents that they need.

A bound is met if the estimate is significantly above it, missed if it is significantly below it. Anything else is undecided: more
documents are needed, not a rounder number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from darumeru.scoring.interval import FLAT


@dataclass(frozen=True)
class Part:
    """What one of K tasks brings to a mean of tasks."""

    error: float
    """Standard error of the task's value, in the value's own units."""
    units: int
    """Independent units that were asked."""
    available: int
    """Units that the benchmark has."""
    documents: int
    """That were asked."""
    right_or_wrong: bool
    """Whether a document's value is 0 or 1."""
    flips: tuple[int, int] | None = None
    """Of a difference between two runs that are right or wrong on each document: how many were won and lost."""

    def variance_at(self, bound: float) -> float:
        """Return the variance of the task's value for a test at a bound: the observed one, or that at the bound if it is more.

        Where few documents or none were answered differently, the observed variance says little. At a bound b a mean of values
        that are 0 or 1 has the variance b (1 - b) / n, which Wilson's test (1927) uses; for differences see `pair_variance`. A
        difference without any variance is taken for one of equal right-or-wrong answers.
        """
        flips = self.flips or ((0, 0) if bound < 0 and self.error < FLAT else None)
        if flips is not None and -1 < bound < 1:
            return max(self.error**2, pair_variance(*flips, self.documents, bound))
        b = min(abs(bound), 1.0)
        single = self.right_or_wrong or self.error < FLAT
        return max(self.error**2, b * (1 - b) / self.units if single else 0.0)

    @property
    def per_unit(self) -> float:
        """Return the documents in a unit."""
        return self.documents / self.units


@dataclass(frozen=True)
class MeanOfTasks:
    """A mean of K tasks' values, with its standard error, which knows how tasks hang together."""

    value: float
    error: float
    parts: tuple[Part, ...]
    df: float
    """Degrees of freedom of the standard error."""

    @property
    def units(self) -> int:
        """Return all independent units."""
        return sum(p.units for p in self.parts)

    @property
    def documents(self) -> int:
        """Return all documents."""
        return sum(p.documents for p in self.parts)


@dataclass(frozen=True)
class OneSided:
    """The two one-sided p-values of an estimate at a bound."""

    above: float
    """Of the hypothesis that the truth is at or below the bound: small where it lies above."""
    below: float
    """Of the hypothesis that the truth is at or above the bound."""


def pair_variance(wins: int, losses: int, documents: int, difference: float) -> float:
    """Return the variance of a mean difference of n right-or-wrong pairs if the true difference were this (Tango 1998).

    The most likely shares of wins p and losses q under p - q = Δ have q = (√(B² - 4AC) - B) / 2A with A = 2n,
    B = -w - l + (2n - w + l) Δ, C = -l Δ (1 - Δ); the variance is (2q + Δ (1 - Δ)) / n.

    >>> round((-1 / 44 + 0.1) / pair_variance(0, 1, 44, -0.1) ** 0.5, 3)  # Tango's worked example: Z = 1.709
    1.709
    """
    a = 2 * documents
    b = -wins - losses + (2 * documents - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    return max(2 * q + difference * (1 - difference), 0.0) / documents


def error_at(estimate: MeanOfTasks, bound: float) -> float:
    """Return the standard error for a test at a bound: the observed one, and what the tasks' variances at the bound are more."""
    missing = sum(p.variance_at(bound) - p.error**2 for p in estimate.parts)
    return math.sqrt(estimate.error**2 + missing / len(estimate.parts) ** 2)


def one_sided(estimate: MeanOfTasks, bound: float) -> OneSided:
    """Return the p-values of Student's t.

    Where nothing varies, they are those of a sign test with all units on one side, and 1 on the bound itself.
    """
    from scipy.stats import t

    error, gap = error_at(estimate, bound), estimate.value - bound
    if error < FLAT:
        same = 0.5**estimate.units
        return OneSided(1.0 if gap < FLAT else same, 1.0 if gap > -FLAT else same)
    return OneSided(float(t.sf(gap / error, estimate.df)), float(t.cdf(gap / error, estimate.df)))


@dataclass(frozen=True)
class Needed:
    """How many documents would decide."""

    documents: int | None
    """In all, those that were asked included, if the benchmark had as many as are wished; None where no number would do."""
    limit: int | None
    """Documents a task that would decide (`--limit`); None where the benchmark has not that many."""
    available: int
    """Documents of the whole benchmark."""
    power: float
    """Of the test on the whole benchmark."""


def documents_needed(estimate: MeanOfTasks, bound: float, alpha: float, power: float) -> Needed:
    """Return the documents with which a one-sided test at a bound decides, if the estimate is the truth.

    A test of level α finds a gap g with power π where g = (z_{1-α} + z_π) SE (Chow, Shao and Wang 2008, section 3.2), and SE²
    falls with the number of documents.

    Args:
        estimate: what was seen.
        bound: the bound.
        alpha: of the test, after correction for many rules.
        power: π.
    """
    from scipy.stats import norm

    gap, error = abs(estimate.value - bound), error_at(estimate, bound)
    z_alpha = float(norm.ppf(1 - alpha))
    available = sum(round(max(p.available, p.units) * p.per_unit) for p in estimate.parts)
    wanted = gap / (z_alpha + float(norm.ppf(power)))

    def error_with(limit: int | None) -> float:
        """Return the standard error with that many documents a task, as far as a task has them."""
        k = len(estimate.parts)
        now = sum(p.variance_at(bound) for p in estimate.parts) / k**2
        then = sum(p.variance_at(bound) * p.units / _units(p, limit) for p in estimate.parts) / k**2
        return error * math.sqrt(then / now) if now > 0 else error

    whole = error_with(None)
    reached = float(norm.cdf(gap / whole - z_alpha)) if whole > 0 else 0.0
    if wanted < 1e-9:
        return Needed(None, None, available, reached)
    factor = max(1.0, (error / wanted) ** 2)
    documents = math.ceil(estimate.documents * factor)
    if whole > wanted:
        return Needed(documents, None, available, reached)
    low, high = 0, max(math.ceil(p.available * p.per_unit) for p in estimate.parts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if error_with(middle) <= wanted else (middle, high)
    return Needed(documents, high, available, reached)


def _units(part: Part, limit: int | None) -> float:
    """Return the units of a task asked with a limit of documents; never fewer than it was asked with."""
    if limit is None:
        return max(part.available, part.units)
    return max(part.units, min(part.available, limit / part.per_unit))
