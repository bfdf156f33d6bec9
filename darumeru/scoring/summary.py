"""The scores of a task as its record states them, each with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from darumeru.scoring.aggregate import Aggregate, Floats, Table, name_of
from darumeru.scoring.bootstrap import RESAMPLES, resample, units
from darumeru.scoring.draws import draw, mean_of
from darumeru.scoring.estimate import UNLIMITED, Estimate, estimate, with_bounds
from darumeru.scoring.interval import LEVEL, Bounds, percentiles


def with_interval(
    value: float | None, draws: Floats | None, count: int | None = None, limits: Bounds = (0.0, 1.0)
) -> dict[str, float | None]:
    """`{"value", "low", "high"}` of a score that has draws and no table; no bounds where nothing could be resampled.

    Args:
        value: the score.
        draws: (B,) bootstrap values of it.
        count: independent units; without it the interval is that of percentiles.
        limits: between which every score lies, if `count` is given; a score outside has none.
    """
    bounds: Bounds | None = None
    if value is not None and draws is not None:
        if count is None:
            bounds = percentiles(draws)
        else:
            inside = limits if limits[0] <= value <= limits[1] else UNLIMITED
            bounds = with_bounds(Estimate(value, draws, max(count - 1, 1), count, inside)).bounds
    low, high = bounds or (None, None)
    return {"value": value, "low": low, "high": high}


def stated(found: Estimate) -> dict[str, Any]:
    """Return a score as a record states it: value, bounds, and how they were made or why there are none."""
    low, high = found.bounds or (None, None)
    about = {"reason": found.reason} if found.bounds is None else {"method": found.method}
    return {"value": found.value, "low": low, "high": high, **about}


def mean_of_metrics(table: Table, metrics: Mapping[str, Aggregate], primary: Iterable[str]) -> float:
    """Return a task's score without its interval: the mean of its primary metrics."""
    return fmean(float(metrics[name](table, name, table.ones())[0]) for name in primary)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return how much a score differs between repeats, as a record states it: √(Σ (x - mean)² / (K - 1)) and its K values."""
    return {"deviation": stdev(values), "values": list(values)}


def score_task(
    table: Table, metrics: Mapping[str, Aggregate], primary: tuple[str, ...], seed: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Any], Estimate]:
    """Return the scores of a task.

    Args:
        table: the scores of its documents.
        metrics: how each metric is aggregated.
        primary: the metrics whose mean is the task's score.
        seed: of the resampling.
        resamples: how often.

    Returns:
        The score and each metric with their interval, and the score's estimate, of which means of tasks are made.
    """
    draws: dict[str, Floats] = {}
    if units(table) > 1:
        draws = draw(table, metrics, resample(table.clusters, table.strata, resamples, seed))
    of_score = {name: metrics[name] for name in primary}
    score = estimate(table, of_score, mean_of(draws, primary) if draws else None, seed)
    found = {name: estimate(table, {name: f}, draws.get(name), seed) for name, f in metrics.items()}
    return (
        {
            "score": stated(score),
            "primary": list(primary),
            "metrics": {name: stated(metric) for name, metric in found.items()},
            "aggregates": {name: name_of(aggregate) for name, aggregate in metrics.items()},
            "documents": len(table),
            "units": score.units,
            "level": LEVEL,
            "resamples": resamples,
        },
        score,
    )
