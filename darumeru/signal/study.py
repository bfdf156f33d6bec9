"""Runs on the same documents, made ready to be compared task by task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from darumeru.errors import UserError
from darumeru.leaderboard.about import distinct_names
from darumeru.leaderboard.entry import Entry, Problem, Result
from darumeru.leaderboard.load import collect, read_run, suite_of
from darumeru.leaderboard.means import counted_groups
from darumeru.record.header import SuiteFacts
from darumeru.record.sample import Sample
from darumeru.scoring.aggregate import Floats

FEWEST = 3
"""Runs: two make one pair, which is ordered rightly or wrongly and no more."""


@dataclass(frozen=True)
class Study:
    """M runs that answered the same documents of the same tasks."""

    entries: list[Entry]
    suite: SuiteFacts
    tasks: list[str]
    """That all runs have, in the suite's order."""
    counted: list[str]
    """Those of them whose mean is the suite's score."""
    samples: dict[str, list[list[Sample]]]
    """Task → for each run its documents with scores, without prompts and answers."""
    costs: dict[str, list[int]]
    """Task → for each run the tokens that it read and wrote."""
    problems: list[Problem]
    """Runs that cannot be read."""

    @property
    def title(self) -> str:
        """Return what the mean over `counted` is called; that of a part of the suite is not named as the whole's."""
        whole = [task for group in counted_groups(self.suite) for task in group.tasks]
        parts = len(self.counted) < len(whole)
        return f"Mean of {len(self.counted)} of {len(whole)} tasks" if parts else self.suite.summary

    def results(self, task: str) -> list[Result]:
        """Return a task's results, a run each."""
        return [e.tasks[task] for e in self.entries]

    def sign(self, task: str) -> int:
        """Return 1, or -1 for a task that is better when lower."""
        return 1 if self.results(task)[0].higher_is_better else -1

    def scores(self, task: str) -> Floats:
        """Return the (M,) scores of a task, higher always better."""
        return self.sign(task) * np.array([r.score.value for r in self.results(task)])

    def whole(self) -> Floats:
        """Return the (M,) scores of the suite: the means over the tasks that count."""
        means: Floats = np.mean([self.scores(t) for t in self.counted], axis=0)
        return means

    def tokens(self, task: str) -> float:
        """Return the tokens that a run read and wrote for a task, the mean over runs."""
        return float(np.mean(self.costs[task]))

    def seconds(self, task: str) -> float | None:
        """Return the engine's time for a task, the mean over runs; None where a run does not tell."""
        found = [r.record.seconds for r in self.results(task)]
        known = [s for s in found if s is not None]
        return float(np.mean(known)) if len(known) == len(found) else None

    def documents(self, task: str) -> int:
        """Return how many documents of a task were asked."""
        return self.results(task)[0].documents

    def available(self, task: str) -> int:
        """Return how many documents the task has."""
        return self.entries[0].stated.tasks[task].of or self.documents(task)

    def trainings(self) -> dict[str, list[int]]:
        """Return training → its runs (their numbers) in the order of steps; runs without a step are in none."""
        found: dict[str, list[tuple[int, int]]] = {}
        for number, entry in enumerate(self.entries):
            training = entry.stated.training
            if training is not None and training.step is not None:
                found.setdefault(training.name or training.run or "", []).append((training.step, number))
        return {name: [number for _, number in sorted(steps)] for name, steps in found.items()}


def read_study(paths: Iterable[Path]) -> Study:
    """Return the runs of some folders as a study.

    Args:
        paths: folders of runs, or folders that hold them.

    Raises:
        UserError: fewer than three runs can be read, they share fewer than two tasks that count, or they were asked different
            things.
    """
    entries: list[Entry] = []
    slim: list[dict[str, list[Sample]]] = []
    costs: list[dict[str, int]] = []
    problems: list[Problem] = []
    for path in collect(paths):
        found = read_run(path)
        if isinstance(found, Problem):
            problems.append(found)
        elif found[0].id not in {e.id for e in entries}:
            entries.append(found[0])
            slim.append({task: [_slim(s) for s in rows] for task, rows in found[1].items()})
            costs.append({task: sum(map(_tokens, rows)) for task, rows in found[1].items()})
    if len(entries) < FEWEST:
        left_out = "".join(f" {p.name}: {p.reason}" for p in problems)
        raise UserError(
            f"{len(entries)} finished runs are too few: a task's signal is the spread between at least {FEWEST} models or "
            f"checkpoints. Give more runs.{left_out}"
        )
    suite = suite_of(entries)
    ours = [task for group in suite.groups for task in group.tasks]
    common = [task for task in ours if all(task in e.tasks for e in entries)]
    counted = [t for g in counted_groups(suite) for t in g.tasks if t in common]
    if len(counted) < 2:
        raise UserError(
            f"The runs share {len(counted)} of the tasks that make the score of suite '{suite.name}': a task is held against "
            "the mean of several. Give runs of the same suite and tasks."
        )
    for task in common:
        _alike(task, entries)
    samples = {task: [rows[task] for rows in slim] for task in common}
    tokens = {task: [run[task] for run in costs] for task in common}
    return Study(distinct_names(entries), suite, common, counted, samples, tokens, problems)


def _slim(sample: Sample) -> Sample:
    """Return a document without its texts, of which many runs would fill the memory."""
    return sample.model_copy(update={"doc": {}, "requests": [], "extra": {}})


def _tokens(sample: Sample) -> int:
    """Return the tokens of prompts and answers, and those of reference texts whose likelihood was asked."""
    return sum(
        (r.prompt_tokens or 0) + len(r.answer.tokens) + (0 if r.answer.generated else r.reference_tokens or 0)
        for r in sample.requests
    )


def _alike(task: str, entries: Sequence[Entry]) -> None:
    """Refuse runs that were asked different things."""
    first = entries[0]
    for entry in entries[1:]:
        mine, other = first.stated.tasks[task], entry.stated.tasks[task]
        what = None
        if first.tasks[task].key != entry.tasks[task].key:
            what = f"other documents ({first.tasks[task].documents} and {entry.tasks[task].documents})"
        elif mine.version != other.version:
            what = f"other versions ({mine.version} and {other.version})"
        elif mine.wording != other.wording:
            what = "another prompt template"
        if what:
            raise UserError(
                f"'{first.path}' and '{entry.path}' were asked {what} in '{task}'. Give runs on the same data, with the same "
                "--limit, --seed and --wording."
            )
