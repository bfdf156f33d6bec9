"""How far a watch has come, and what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from darumeru.watch.curve import Metrics, Point
from darumeru.watch.rules import Fired


@dataclass(frozen=True)
class Status:
    """How far a watch has come."""

    metrics: Metrics
    points: Sequence[Point]
    remarks: Mapping[int, str]
    """What is to be said of a step: that it is being evaluated, waited for, failed, deleted."""
    event: str | None = None
    """What has just happened, in a sentence."""


@dataclass(frozen=True)
class Outcome:
    """What a watch found."""

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
