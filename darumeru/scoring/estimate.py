"""A score with its sampling error, and the one place that decides which interval it gets.

| score | interval |
|---|---|
| share of documents that are right, each for itself | Wilson's score interval |
| Matthews correlation, also in a mean of metrics | posterior of the confusion matrix, percentiles widened for few documents |
| other scores between two limits: graded answers, clusters, strata, macro-F1 | Student's t on log-odds |
| scores of one sign: bits per byte, log-probabilities, symbols per token | Student's t on the logarithm |
| any other score | Student's t |
| mean of tasks | the tasks' own intervals, squared and added |
| one independent unit; no spread between infinite limits | none, with the reason |

Standard errors are those of the bootstrap draws (`bootstrap.resample`), which paired comparisons and ranks use as well. Degrees
of freedom are those of units with a common variance (`bootstrap.degrees_of_freedom`). Where no draw differs from the score, its
spread is not 0 but unknown: a score between limits then gets Wilson's interval of as many units. A Matthews correlation of
several repeats goes by its bootstrap, on log-odds.

Several drawn answers to a document are not independent: the document counts with their mean, so that draws weigh all its repeats
alike. What its answers differ by from repeat to repeat is part of what documents differ by, and so of the standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from darumeru.scoring.aggregate import (
    Aggregate,
    Floats,
    Table,
    bits_per_byte,
    f1_macro,
    matthews,
    mean,
)
from darumeru.scoring.bootstrap import degrees_of_freedom, units
from darumeru.scoring.interval import (
    FLAT,
    Bounds,
    degrees_of_sum,
    log_odds,
    log_scale,
    percentiles,
    quantile,
    square_and_add,
    student,
    wilson,
)

WILSON, JEFFREYS, LOG_ODDS, LOG, STUDENT = "wilson", "jeffreys", "log-odds t", "log t", "t"
SQUARE_AND_ADD = "square-and-add"
UNLIMITED = (-math.inf, math.inf)
ONE_UNIT = "one independent unit says nothing of others"
NO_SPREAD = "all units have the same value, so their spread is unknown"


@dataclass(frozen=True)
class Estimate:
    """A score, its sampling error and its interval."""

    value: float
    draws: Floats | None = None
    """(B,) bootstrap values; None where nothing can be resampled."""
    df: float = 1.0
    """Degrees of freedom of the draws' standard error."""
    units: int = 1
    limits: Bounds = UNLIMITED
    """Between which every possible score lies."""
    bounds: Bounds | None = None
    normal: Bounds | None = None
    """The bounds that it would have if its standard error were known exactly: a part of a mean needs these."""
    method: str | None = None
    reason: str | None = None
    """Why there is no interval."""

    @property
    def error(self) -> float:
        """Return the standard error of the draws."""
        return 0.0 if self.draws is None else float(np.std(self.draws, ddof=1))


def estimate(table: Table, metrics: Mapping[str, Aggregate], draws: Floats | None, seed: int) -> Estimate:
    """Return the mean of metrics of a task.

    Args:
        table: its documents.
        metrics: their aggregates by name.
        draws: (B,) bootstrap values of the mean of the metrics; None where there is but one unit.
        seed: of the draws of a posterior.
    """
    value = float(np.mean([f(table, name, table.ones())[0] for name, f in metrics.items()]))
    limits = _mean_limits([limits_of(table, name, f) for name, f in metrics.items()])
    found = Estimate(value, draws, _degrees(table, metrics), units(table), limits)
    single = found.units == len(table)
    once = len(table.pred) == 1
    if draws is None:
        return with_bounds(found)
    if single and all(f is mean and _binary(table, name) for name, f in metrics.items()) and len(metrics) == 1:
        bounds = wilson(value, len(table))
        return replace(found, bounds=bounds, normal=bounds, method=WILSON)
    if single and once and len(table.labels) > 1 and any(f is matthews for f in metrics.values()):
        drawn = posterior(table, metrics, len(draws), seed)
        return replace(found, bounds=percentiles(drawn, found.df), normal=percentiles(drawn), method=JEFFREYS)
    return with_bounds(found)


def with_bounds(found: Estimate) -> Estimate:
    """Return an estimate with the interval that its draws and limits give."""
    if found.draws is None:
        return replace(found, normal=_of_units(found), reason=ONE_UNIT)
    (lower, upper), value = found.limits, found.value
    bounded = math.isfinite(lower) and math.isfinite(upper)
    if found.error < FLAT or (bounded and not lower < value < upper):
        bounds = _of_units(found)
        return (
            replace(found, bounds=bounds, normal=bounds, method=WILSON) if bounds else replace(found, reason=NO_SPREAD)
        )
    formula: Callable[[float, float, float], Bounds]
    if bounded:
        method, formula = LOG_ODDS, partial(log_odds, limits=found.limits)
    elif 0.0 in found.limits and value != 0:
        method, formula = LOG, log_scale
    else:
        method, formula = STUDENT, student
    bounds, normal = (formula(value, found.error, df) for df in (found.df, math.inf))
    return replace(found, bounds=bounds, normal=normal, method=method)


def _of_units(found: Estimate) -> Bounds | None:
    """Return Wilson's interval of as many units between the limits; None between infinite ones."""
    lower, width = found.limits[0], found.limits[1] - found.limits[0]
    if not math.isfinite(width):
        return None
    low, high = wilson(min(max((found.value - lower) / width, 0.0), 1.0), found.units)
    return lower + width * low, lower + width * high


def _degrees(table: Table, metrics: Mapping[str, Aggregate]) -> float:
    """Return the degrees of freedom of the draws' standard error; texts of unequal length count by their effective number.

    Kish (1965): (Σ bytes)² / Σ bytes².
    """
    if bits_per_byte not in metrics.values():
        return degrees_of_freedom(table)
    size = np.bincount(table.clusters, weights=table.columns["bytes"])
    return max(float(size.sum() ** 2 / (size**2).sum()) - 1, 1.0)


def _binary(table: Table, name: str) -> bool:
    return bool(np.isin(table.columns[name], (0.0, 1.0)).all())


def limits_of(table: Table, name: str, aggregate: Aggregate) -> Bounds:
    """Return between what the values of a metric lie; documents' values in [0, 1] are taken for shares."""
    if aggregate is matthews:
        return -1.0, 1.0
    if aggregate is f1_macro:
        return 0.0, 1.0
    if aggregate is bits_per_byte:
        return 0.0, math.inf
    column = table.columns.get(name)
    if column is None:  # a task's own aggregate, of columns that it alone knows
        return UNLIMITED
    low, high = float(column.min()), float(column.max())
    return (-math.inf if low < 0 else 0.0), (1.0 if 0 <= low <= high <= 1 else 0.0 if high <= 0 else math.inf)


def _mean_limits(limits: Sequence[Bounds]) -> Bounds:
    """Return the limits of a mean."""
    low, high = np.mean(limits, axis=0)
    return float(low), float(high)


def posterior(table: Table, metrics: Mapping[str, Aggregate], count: int, seed: int) -> Floats:
    """Return draws of the mean of metrics from the posterior of the confusion matrix, whose documents weigh exponential numbers.

    Documents that are right or wrong are known by their cell. The prior adds 2 / k² of a document to each of the k² cells, which
    with two labels is Jeffreys' ½: a cell that happens to be empty among few documents is not impossible. A resampled Matthews
    correlation cannot know that; it is 0 or far too sure where the model hardly ever chose one of the labels.

    Args:
        table: N documents with gold and chosen labels, answered once.
        metrics: their aggregates by name.
        count: how many draws, B.
        seed: of the draws.

    Returns:
        (B,) values.
    """
    k = len(table.labels)
    gold, pred = np.divmod(np.arange(k * k), k)
    columns = {}
    for name, column in table.columns.items():
        cells = table.gold * k + table.pred[0]
        known = np.bincount(cells, minlength=k * k)
        means = np.bincount(cells, weights=column, minlength=k * k) / np.maximum(known, 1)
        filled = np.where(known > 0, means, gold == pred)
        columns[name] = np.concatenate([column, filled])
    size = len(table)
    wide = Table(
        columns,
        gold=np.concatenate([table.gold, gold]),
        pred=np.concatenate([table.pred, pred[None]], axis=1),
        labels=table.labels,
        clusters=np.arange(size + k * k),
        strata=np.zeros(size + k * k, dtype=np.int64),
        strata_names=[""],
    )
    rng = np.random.default_rng(seed)
    parts = []
    for start in range(0, count, 100):
        block = min(100, count - start)
        prior = rng.standard_gamma(2 / (k * k), size=(block, k * k))
        weights = np.concatenate([rng.standard_exponential((block, size)), prior], axis=1)
        parts.append(np.mean([f(wide, name, weights) for name, f in metrics.items()], axis=0))
    return np.concatenate(parts)


def estimate_mean(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of estimates, such as of the tasks of a group; entry b of all draws weighs shared documents alike.

    Each part brings its own interval (`square_and_add`), as one whose draws are flat is not certain; correlations are those of
    the draws. The sum is widened by t over z with Welch's degrees of freedom. A part of one unit, which has no interval of its
    own, counts with Wilson's of a single answer.

    Args:
        parts: one or more.
    """
    count = len(parts)
    value = float(np.mean([p.value for p in parts]))
    if count == 1:
        return parts[0]
    drawn = [p.draws for p in parts]
    draws = None if any(d is None for d in drawn) else np.mean([d for d in drawn if d is not None], axis=0)
    total = sum(p.units for p in parts)
    lacking = [p for p in parts if p.normal is None]
    if lacking:
        return Estimate(value, draws, units=total, reason=lacking[0].reason)
    ends = np.array([p.normal for p in parts])
    variances = ((ends[:, 1] - ends[:, 0]) / (2 * quantile())) ** 2
    exact = [p.method not in (LOG_ODDS, LOG, STUDENT) for p in parts]
    df = degrees_of_sum(variances.tolist(), [math.inf if e else p.df for e, p in zip(exact, parts, strict=True)])
    values = np.array([p.value for p in parts])
    down, up = (values - ends[:, 0]) / count, (ends[:, 1] - values) / count
    normal = square_and_add(value, down, up, _correlation(drawn))
    wider = quantile(df=df) / quantile()
    low, high = value - (value - normal[0]) * wider, value + (normal[1] - value) * wider
    limits = _mean_limits([p.limits for p in parts])
    low, high = max(low, limits[0]), min(high, limits[1])
    return Estimate(value, draws, df, total, limits, (low, high), normal, SQUARE_AND_ADD)


def _correlation(drawn: Sequence[Floats | None]) -> Floats:
    """Return the correlations of draws, 0 where there are none or they are flat."""
    moving = [i for i, d in enumerate(drawn) if d is not None and float(np.std(d)) > FLAT]
    matrix = np.eye(len(drawn))
    if len(moving) > 1:
        matrix[np.ix_(moving, moving)] = np.corrcoef([drawn[i] for i in moving])  # type: ignore[arg-type]
    return matrix
