"""The means of a board: which tasks each is made of, and entries that have no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from darumeru.leaderboard.entry import Bounded, Entry, Result
from darumeru.record.header import GroupFacts, SuiteFacts
from darumeru.scoring.aggregate import Floats
from darumeru.scoring.estimate import Estimate, estimate_mean


def members_of(suite: SuiteFacts) -> dict[str, list[str]]:
    """Column → the tasks whose mean it is."""
    groups = {g.name: list(g.tasks) for g in suite.groups}
    counted = [task for g in counted_groups(suite) for task in g.tasks]
    return {"suite": counted, **groups, **{t: [t] for tasks in groups.values() for t in tasks}}


def counted_groups(suite: SuiteFacts) -> list[GroupFacts]:
    """Return the groups whose tasks make the suite's score: shares in [0, 1], unlike bits per byte and log-probabilities."""
    return [g for g in suite.groups if g.counts]


def draws_of(entry: Entry, tasks: Sequence[str]) -> Floats | None:
    """(B,) bootstrap values of the mean over `tasks`; None where one has none."""
    found = [entry.tasks[t].draws if t in entry.tasks else None for t in tasks]
    known = [d for d in found if d is not None]
    if not known or len(known) < len(found):
        return None
    mean: Floats = np.mean(np.stack(known).astype(np.float64), axis=0)
    return mean


def with_means_of(entry: Entry, suite: SuiteFacts) -> Entry:
    """Return an entry with the means of a board's suite and no others: each over all tasks of its column, and only these.

    A mean over a part is dropped, as it must not stand under the name of the whole. Where a run has further tasks, the mean
    of the suite's is made from them.
    """
    if entry.header is None:
        return entry
    asked, columns = members_of(entry.header.suite), members_of(suite)
    scores = {name: score for name, score in entry.scores.items() if name in entry.tasks}
    finished = {k: v for k, v in entry.spent.finished.items() if k in entry.tasks} if entry.spent else {}
    for column in ("suite", *(g.name for g in suite.groups)):
        tasks = columns[column]
        if not tasks or not set(tasks) <= set(entry.tasks):
            continue
        if column == "suite" and entry.header.suite.name != suite.name:
            continue
        own = entry.scores.get(column) if set(asked.get(column, ())) == set(tasks) else None
        scores[column] = own or _mean([entry.tasks[task] for task in tasks])
        if set(tasks) <= finished.keys():
            finished[column] = float(np.mean([finished[task] for task in tasks]))
    spent = replace(entry.spent, finished=finished) if entry.spent else None
    return replace(entry, scores=scores, spent=spent)


def _mean(results: Sequence[Result]) -> Bounded:
    """Return the mean of tasks from their own intervals."""
    parts = []
    for r in results:
        bounds = None if r.score.low is None or r.score.high is None else (r.score.low, r.score.high)
        draws = None if r.draws is None else r.draws.astype(np.float64)
        parts.append(Estimate(r.score.value, draws, r.df, r.units, bounds=bounds, normal=bounds))
    found = estimate_mean(parts)
    return Bounded(found.value, *(found.bounds or (None, None)))
