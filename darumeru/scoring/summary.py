"""From the scores of documents to the scores of tasks, groups and suite, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darumeru.scoring.aggregate import Aggregate, Floats, Table, name_of
from darumeru.scoring.bootstrap import LEVEL, RESAMPLES, interval, resample, units
from darumeru.scoring.draws import draw, mean_of


def with_interval(value: float | None, draws: Floats | None, count: int | None = None) -> dict[str, float | None]:
    """`{"value", "low", "high"}`; no bounds where nothing could be resampled.

    Where every draw is the same (28 wrong answers of 28), resampling would claim certainty. If the number of independent
    units is given, such a score in [0, 1] gets the exact binomial bounds instead: with n units all at v, a share of at
    most 1 - 0.025^(1/n) of all units can lie elsewhere (Clopper and Pearson 1934, for v = 0 and 1).
    """
    if value is None or draws is None:
        return {"value": value, "low": None, "high": None}
    low, high = interval(draws)
    if count and high - low < 1e-12 and 0 <= value <= 1:
        same = ((1 - LEVEL) / 2) ** (1 / count)
        low, high = value * same, 1 - (1 - value) * same
    return {"value": value, "low": low, "high": high}


def mean_with_interval(
    value: float | None, draws: Floats | None, scores: Sequence[Mapping[str, float | None]]
) -> dict[str, float | None]:
    """Return the same for a mean of tasks with these `scores`; where every draw is the same, the means of the tasks' own bounds.

    These err on the safe side: all tasks would have to be at their bounds at once.
    """
    found = with_interval(value, draws)
    if draws is not None and found["low"] == found["high"]:
        bounds = {side: [score[side] for score in scores] for side in ("low", "high")}
        found |= {side: float(np.mean(b)) for side, b in bounds.items() if all(v is not None for v in b)}  # type: ignore[arg-type]
    return found


def score_task(
    table: Table, metrics: Mapping[str, Aggregate], primary: tuple[str, ...], seed: int, resamples: int = RESAMPLES
) -> tuple[dict[str, Any], Floats | None]:
    """Return the scores of a task.

    Args:
        table: the scores of its documents.
        metrics: how each metric is aggregated.
        primary: the metrics whose mean is the task's score.
        seed: of the resampling.
        resamples: how often.

    Returns:
        The score and each metric with their interval, and the (resamples,) draws of the score; no draws where there is
        but one independent unit.
    """
    plain = {name: float(aggregate(table, name, table.ones())[0]) for name, aggregate in metrics.items()}
    draws: dict[str, Floats] = {}
    count = units(table)
    if count > 1:
        draws = draw(table, metrics, resample(table.clusters, table.strata, resamples, seed))
    score_draws = mean_of(draws, primary) if draws else None
    return (
        {
            "score": with_interval(float(np.mean([plain[n] for n in primary])), score_draws, count),
            "primary": list(primary),
            "metrics": {name: with_interval(value, draws.get(name), count) for name, value in plain.items()},
            "aggregates": {name: name_of(aggregate) for name, aggregate in metrics.items()},
            "documents": len(table),
            "units": count,
            "level": LEVEL,
            "resamples": resamples,
        },
        score_draws,
    )
