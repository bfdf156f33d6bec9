"""Scores of a run with and without contaminated documents, and their paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.errors import UserError
from darumeru.record.draws import aggregates_of, documents_key, first_split
from darumeru.record.sample import Sample, table_of
from darumeru.scoring.aggregate import Aggregate, Floats, Table, cluster_sum
from darumeru.scoring.bootstrap import RESAMPLES, degrees_of_freedom, resample, units
from darumeru.scoring.compare import Difference, degrees_of_mean, difference
from darumeru.scoring.draws import draw, mean_of, seed_of_documents, seed_of_run
from darumeru.scoring.estimate import Estimate, estimate_mean
from darumeru.scoring.summary import score_task, stated

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from darumeru.record.run import Run
    from darumeru.task.base import DarumeruTask


@dataclass(frozen=True)
class Line:
    """The score of a task or of the suite."""

    name: str
    title: str
    documents: int
    without: int
    """Documents that were left out; where a cluster's values are summed, all of a cluster."""
    all: dict[str, Any]
    """The score over all documents, as records state it."""
    clean: dict[str, Any]
    """The score without the contaminated documents."""
    difference: Difference
    """Clean - all, on the same draws of documents."""


@dataclass(frozen=True)
class Effect:
    """What contaminated documents do to the scores of a run."""

    name: str
    """The model's."""
    id: str
    lines: list[Line]
    """The tasks with contaminated documents; the suite last, where all of its tasks have clean documents."""
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Scored:
    """A task with and without some documents."""

    documents: int
    without: int
    all: Estimate
    clean: Estimate
    draws: tuple[Floats, Floats] | None
    units: int
    df: float


def effect_on(run: Run, tasks: Mapping[str, DarumeruTask], contaminated: Mapping[str, AbstractSet[int]]) -> Effect:
    """Return the scores of a run with and without documents.

    The score without them is that of the other documents; the difference is paired: entry b of both weighs the documents alike.

    Args:
        run: a finished run.
        tasks: the tasks that were searched.
        contaminated: task → documents to leave out.

    Raises:
        UserError: the run asked other documents, or none of these tasks.
    """
    header, scores = run.header, run.scores
    common = [name for name in run.tasks if name in tasks and name in scores.tasks]
    if not common:
        raise UserError(f"Run '{run.path}' has none of the tasks that were searched: {', '.join(tasks)}.")
    scored: dict[str, _Scored] = {}
    remarks: list[str] = []
    for name in common:
        task = tasks[name]
        had = first_split(header.tasks[name].data)[1].get("sha256")
        if had != first_split(task.sources())[1].get("sha256"):
            raise UserError(
                f"Run '{run.path}' asked other documents of '{name}' than were searched. "
                "Search its data: the same --data, and --lock with the run's folder where it is the hub."
            )
        samples = list(run.samples(name))
        table = table_of(samples, (*scores.tasks[name].primary, "bits", "bytes"))
        aggregates = aggregates_of(scores.tasks[name], table)
        if aggregates is None:
            remarks.append(f"{name}: its documents do not give the recorded score; 'darumeru rescore' the run first.")
            continue
        left = _kept(samples, contaminated.get(name, frozenset()), aggregates)
        if not left.any():
            remarks.append(f"{name}: all of its documents are contaminated, so it has no score without them.")
            continue
        seed = seed_of_run(header.seed, task.dataset, task.config.test_split)
        scored[name] = _score(samples, table, left, aggregates, seed, documents_key(header.tasks[name].data, samples))
    lines = [_line(name, name, [found]) for name, found in scored.items() if found.without]
    counted = [t for group in header.suite.groups if group.counts for t in group.tasks]
    if lines and counted and all(t in scored for t in counted):
        lines.append(_line("suite", header.suite.summary, [scored[t] for t in counted]))
    return Effect(header.model.name, header.id or "", lines, remarks)


def _kept(
    samples: Sequence[Sample], contaminated: AbstractSet[int], aggregates: Mapping[str, Aggregate]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return (N,) which documents are left; of a sum over a cluster no part is worth anything without the others."""
    broken: set[str | None] = set()
    if cluster_sum in aggregates.values():
        broken = {s.cluster for s in samples if s.id in contaminated} - {None}
    return np.array([s.id not in contaminated and s.cluster not in broken for s in samples])


def _score(
    samples: Sequence[Sample],
    table: Table,
    left: np.ndarray[tuple[int], np.dtype[np.bool_]],
    aggregates: Mapping[str, Aggregate],
    seed: int,
    key: str,
) -> _Scored:
    primary = tuple(aggregates)
    rest = table_of([s for s, kept in zip(samples, left, strict=True) if kept], table.columns)
    whole, clean = (score_task(part, aggregates, primary, seed)[1] for part in (table, rest))
    draws = None
    if units(rest) > 1:
        weights = list(resample(table.clusters, table.strata, RESAMPLES, seed_of_documents(key)))
        drawn = draw(table, aggregates, weights), draw(rest, aggregates, (w[:, left] for w in weights))
        draws = mean_of(drawn[0], primary), mean_of(drawn[1], primary)
    return _Scored(len(left), int((~left).sum()), whole, clean, draws, units(rest), degrees_of_freedom(rest))


def _line(name: str, title: str, parts: Sequence[_Scored]) -> Line:
    whole, clean = estimate_mean([p.all for p in parts]), estimate_mean([p.clean for p in parts])
    drawn = [p.draws for p in parts if p.draws is not None]
    df, sides = None, (None, None)
    if len(drawn) == len(parts):
        sides = tuple(np.mean([d[side] for d in drawn], axis=0) for side in (0, 1))
        moving = [(b - a, p.df) for (a, b), p in zip(drawn, parts, strict=True) if p.without]
        df = degrees_of_mean([d for d, _ in moving], [df for _, df in moving]) if moving else None
    found = difference(whole.value, clean.value, *sides, sum(p.units for p in parts), df)
    documents, without = sum(p.documents for p in parts), sum(p.without for p in parts)
    return Line(name, title, documents, without, stated(whole), stated(clean), found)
