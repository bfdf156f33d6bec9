"""Progress of a watch, and its findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from darumeru.race.challenge import lost
from darumeru.record.run import Run
from darumeru.watch.curve import Metrics, Point
from darumeru.watch.rules import Fired


@dataclass(frozen=True)
class Status:
    """Progress of a watch."""

    metrics: Metrics
    points: Sequence[Point]
    remarks: Mapping[int, str]
    """Note on a step: that it is being evaluated, waited for, failed, deleted."""
    event: str | None = None
    """Latest event, in a sentence."""


@dataclass(frozen=True)
class Outcome:
    """Findings of a watch."""

    metrics: Metrics
    points: tuple[Point, ...]
    failed: Mapping[int, str]
    """Step → reason."""
    deleted: tuple[int, ...]
    """Steps whose checkpoint was deleted before it could be evaluated."""
    unfinished: Mapping[int, str]
    """Steps whose checkpoint is not whole → reason."""
    fired: tuple[Fired, ...]
    best: Point | None


Report = Callable[[Status], None]
"""Is told how far a watch has come."""


def told(run: Run, step: int, seconds: float) -> str:
    """Return in a sentence what came of a checkpoint."""
    if worse := lost(run):
        low, high = worse.difference
        return (
            f"checkpoint-{step} is worse than {worse.best} ({low:+.3f} to {high:+.3f}, {worse.documents} of {worse.of} "
            f"documents, {seconds:.0f} s): {run.path}"
        )
    value = run.scores.suite.value
    score = "" if value is None else f", {run.scores.suite.title} {value:.3f}"
    return f"checkpoint-{step} is evaluated ({seconds:.0f} s{score}): {run.path}"
