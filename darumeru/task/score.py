"""What a document's answers are worth, and the documents of a task as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from darumeru.scoring.aggregate import Table


@dataclass(frozen=True)
class Score:
    """The scores of one document."""

    metrics: dict[str, float]
    gold: str | None = None
    """choose: the gold label."""
    pred: str | None = None
    """choose: the chosen label."""
    cluster: str | None = None
    """Documents with equal clusters are not independent and are resampled together."""
    stratum: str | None = None
    ties: int = 0
    """choose: questions whose best labels had exactly the same probability."""
    repeated_golds: int = 0
    """Gold answers that the row lists more than once; the repetitions do not count."""
    golds_outside: int = 0
    """Gold answers that are none of the options: they cannot be given."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More about the answer that a reader of the samples wants to see."""
    repeats: tuple[Score, ...] = ()
    """What each of several drawn answers is worth; `metrics` are then their means."""


class MetricValue(float):
    """One metric of a document, for lm-eval: a number in its logs, and with it the whole score, which aggregates need."""

    score: Score

    def __new__(cls, value: float, score: Score) -> MetricValue:
        """Return the value of a metric in a score."""
        made = super().__new__(cls, value)
        made.score = score
        return made

    def __reduce__(self) -> tuple[type[MetricValue], tuple[float, Score]]:
        """Let copies, also in other processes, have the score too."""
        return MetricValue, (float(self), self.score)


def over_repeats(scores: Sequence[Score]) -> Score:
    """Return what a document's repeats are worth together: means of metrics, and the label that is chosen most often."""
    first = scores[0]
    if len(scores) == 1:
        return first
    chosen = [s.pred for s in scores]
    return replace(
        first,
        metrics={name: fmean(s.metrics[name] for s in scores) for name in first.metrics},
        pred=max(chosen, key=chosen.count),
        ties=sum(s.ties for s in scores),
        extra={},
        repeats=tuple(scores),
    )


def table_of(scores: Sequence[Score]) -> Table:
    """Return the scores of a task's documents as columns."""
    names = scores[0].metrics if scores else {}
    return Table.build(
        {n: [s.metrics[n] for s in scores] for n in names},
        gold=[s.gold for s in scores],
        pred=[s.pred for s in scores],
        clusters=[s.cluster for s in scores],
        strata=[s.stratum for s in scores],
    )
