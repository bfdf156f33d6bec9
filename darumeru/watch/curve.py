"""The curve of a training: scores against steps, which of them are better when lower, and the best point."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darumeru.evaluation import Settings
    from darumeru.record.run import Run
    from darumeru.record.scores import Score
    from darumeru.task.base import DarumeruTask
    from darumeru.task.suite import Suite

MICRO_AVG = "micro_avg"
"""The suite's mean."""

LOSS = "loss"
"""The training loss as the Trainer logs it; it has points of its own, between the evaluations."""

GRAD_NORM = "grad_norm"


@dataclass(frozen=True)
class Point:
    """A step of a training: the scores of an evaluation, or a logged loss."""

    step: int
    values: Mapping[str, float]
    """By `micro_avg`, group and task; or `loss` and `grad_norm`."""
    tokens_seen: int | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals, where they are known."""
    run: str | None = None
    """Folder of the record."""


@dataclass(frozen=True)
class Metrics:
    """A metric of a suite, for rules and tables."""

    suite: str
    titles: Mapping[str, str]
    """`micro_avg`, groups and tasks, in order, with their titles."""
    groups: tuple[str, ...]
    tasks: tuple[str, ...]
    lower: frozenset[str]
    """Those that are better when lower: bits per byte, the loss."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that a rule may name."""
        return (*self.titles, LOSS)

    def better(self, metric: str, a: float, b: float) -> bool:
        """Return whether `a` is better than `b`; a value that is no number is never better."""
        if math.isnan(a):
            return False
        return math.isnan(b) or (a < b if metric in self.lower else a > b)


def metrics_of(suite: Suite, tasks: Mapping[str, DarumeruTask]) -> Metrics:
    """The metrics of a suite whose tasks have been loaded."""
    lower = {name for name, task in tasks.items() if not task.higher_is_better()["score"]}
    lower |= {g.name for g in suite.groups if all(t in lower for t in g.tasks)}
    titles = {MICRO_AVG: suite.summary} if suite.counted else {}
    titles |= {g.name: g.title for g in suite.groups} | {t: t for t in suite.tasks}
    groups = tuple(g.name for g in suite.groups)
    return Metrics(suite.name, titles, groups, suite.tasks, frozenset({*lower, LOSS}))


def metrics_for(settings: Settings) -> Metrics:
    """The metrics of what is asked.

    Raises:
        UserError: no such suite or task.
    """
    from darumeru.task.suite import Catalogue

    catalogue = Catalogue(settings.include_path)
    suite = catalogue.suite(settings.suite, settings.tasks)
    # Rows are not read, so any bundle will do.
    return metrics_of(suite, catalogue.load(suite.tasks, "mini", likelihood=settings.likelihood))


def point_of(run: Run) -> Point:
    """The point of a run whose header names a step; of one that is worse than the best, what its race told of the mean."""
    from darumeru.race.challenge import lost

    training = run.header.training
    if training is None or training.step is None:
        raise ValueError(f"the header of '{run.path}' names no step of a training")
    if worse := lost(run):
        values, bounds = {MICRO_AVG: worse.value}, {MICRO_AVG: (worse.low, worse.high)}
        return Point(training.step, values, training.tokens_seen, bounds, str(run.path))
    scores = run.scores
    found: dict[str, Score] = {MICRO_AVG: scores.suite, **scores.groups}
    found |= {name: result.score for name, result in scores.tasks.items()}
    return Point(
        step=training.step,
        tokens_seen=training.tokens_seen,
        values={name: s.value for name, s in found.items() if s.value is not None},
        bounds={name: (s.low, s.high) for name, s in found.items() if s.low is not None and s.high is not None},
        run=str(run.path),
    )


def logged(history: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The losses and gradient norms in a Trainer's `log_history`."""
    return [
        Point(int(entry["step"]), values)
        for entry in history
        if (values := {k: float(entry[k]) for k in (LOSS, GRAD_NORM) if isinstance(entry.get(k), int | float)})
        and "step" in entry
    ]


def best(points: Sequence[Point], metric: str, metrics: Metrics) -> Point | None:
    """The earliest of the best points; None where none has the metric as a number."""
    found: Point | None = None
    for point in sorted(points, key=lambda p: p.step):
        value = point.values.get(metric, math.nan)
        if metrics.better(metric, value, math.nan if found is None else found.values[metric]):
            found = point
    return found
