"""What a tracker is, and what it is told of a finished run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darumeru.record.run import Run
from darumeru.record.sample import Sample
from darumeru.record.scores import Score

SAMPLES = 20
"""Samples of a task that a tracker gets."""
COLUMNS = ("task", "id", "prompt", "answer", "gold", "score")
"""What is told of a sample."""


@dataclass(frozen=True)
class Line:
    """A score with its interval."""

    name: str
    """`suite`, `groups/NAME` or `tasks/NAME`; letters, digits, `_`, `-`, `.`, `/` only."""
    title: str
    score: Score
    documents: int | None
    """Of a task."""


@dataclass(frozen=True)
class Report:
    """A finished run, as trackers are told of it: no keys, no addresses of servers, no arguments of engines."""

    project: str
    """Under which trackers put it, where their own environment variables do not say."""
    name: str
    """The model's."""
    id: str
    """The run's identity."""
    record: str
    """The folder of its record, which has all the rest."""
    step: int | None
    """Of the training, where the model is a checkpoint."""
    settings: Mapping[str, str | int | float | bool | None]
    lines: tuple[Line, ...]
    samples: Mapping[str, list[tuple[str, int, str, str, str, float]]]
    """Task → rows of `COLUMNS`."""
    table: str
    """The scores in Markdown."""

    def values(self) -> dict[str, float]:
        """Return the scores and their bounds by name: `suite`, `suite/low`, `suite/high`, `tasks/parus`, …"""
        found = {}
        for line in self.lines:
            bounds = {
                line.name: line.score.value,
                f"{line.name}/low": line.score.low,
                f"{line.name}/high": line.score.high,
            }
            found.update({name: value for name, value in bounds.items() if value is not None})
        return found


@dataclass(frozen=True)
class Tracker:
    """Where reports of runs are kept."""

    modules: tuple[str, ...]
    """Packages that it needs."""
    send: Callable[[Report], str]
    """Keeps a report and returns where it can be looked at. May raise anything."""


def report_of(run: Run) -> Report:
    """Return what trackers are told of a finished run."""
    from darumeru.leaderboard.tables import run_markdown

    header, scores = run.header, run.scores
    lines = [Line("suite", scores.suite.title, scores.suite, None)]
    lines += [Line(f"groups/{_plain(name)}", mean.title, mean, None) for name, mean in scores.groups.items()]
    lines += [Line(f"tasks/{_plain(n)}", n, task.score, task.documents) for n, task in scores.tasks.items()]
    return Report(
        project="darumeru",
        name=header.model.name,
        id=header.id or run.path.name,
        record=str(run.path),
        step=header.training.step if header.training else None,
        settings={
            "model": header.model.name,
            "revision": header.model.revision,
            "weights_sha256": header.model.weights_sha256,
            "engine": header.engine.name,
            "dtype": header.engine.dtype,
            "mode": header.mode,
            "num_fewshot": header.num_fewshot,
            "thinking": header.how_thought,
            "generation": header.how_drawn,
            "seed": header.seed,
            "limit": header.limit,
            "suite": header.suite.name,
            "suite_version": header.suite.version,
            "record": str(run.path),
            "record_id": header.id,
        },
        lines=tuple(lines),
        samples={
            name: [_row(name, sample, task.primary) for sample in _spread(list(run.samples(name)))]
            for name, task in scores.tasks.items()
        },
        table=run_markdown(run),
    )


def _plain(name: str) -> str:
    """Return a name in letters that every tracker takes."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-") or "-"


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """Return at most `SAMPLES`, evenly spread."""
    count = min(SAMPLES, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _row(task: str, sample: Sample, primary: list[str]) -> tuple[str, int, str, str, str, float]:
    answers = [asked.answer.text for asked in sample.requests if asked.answer.text]
    gold = sample.gold if isinstance(sample.gold, str) else ", ".join(map(str, _listed(sample.gold)))
    answer = sample.pred if sample.pred is not None else "\n".join(answers)
    prompt = sample.requests[0].prompt if sample.requests else ""
    return task, sample.id, prompt, answer, gold, sample.mark(primary)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
