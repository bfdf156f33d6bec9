"""What a run's thinking cost and brought: tokens and seconds a document, unfinished thoughts, the score without these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from darumeru.record.header import Header, SuiteFacts
from darumeru.record.scores import Scores, TaskResult

if TYPE_CHECKING:
    from darumeru.leaderboard.entry import Entry


@dataclass(frozen=True)
class Spent:
    """Cost of a run's answers, and what thinking made of them."""

    tokens: float
    """Generated for a document (each time that it was asked), thoughts included; mean over all documents."""
    thought: float
    """The part of these that thoughts took."""
    seconds: float | None
    """The engine's time for a document; None where it is not known."""
    unfinished: float
    """Share of requests whose thought did not end."""
    finished: dict[str, float]
    """Column → score over the documents all of whose thoughts ended; only where every task of the column has some."""


def spent_by(scores: Scores, suite: SuiteFacts) -> Spent | None:
    """Return what a run's answers cost; None for a record that does not count tokens."""
    tasks = scores.tasks
    documents = sum(_asked(t) for t in tasks.values())
    requests = sum(t.requests for t in tasks.values())
    if not documents or not requests:
        return None
    timed = [t for t in tasks.values() if t.seconds is not None]
    thought = sum(t.thought_tokens for t in tasks.values())
    return Spent(
        tokens=(thought + sum(t.generated_tokens for t in tasks.values())) / documents,
        thought=thought / documents,
        seconds=sum(t.seconds or 0.0 for t in timed) / sum(_asked(t) for t in timed) if timed else None,
        unfinished=sum(t.unfinished_thoughts for t in tasks.values()) / requests,
        finished=_finished(tasks, suite),
    )


def _asked(task: TaskResult) -> int:
    """Return how many times documents were asked: every repeat counts."""
    return task.documents * (len(task.repeats.values) if task.repeats else 1)


def _finished(tasks: dict[str, TaskResult], suite: SuiteFacts) -> dict[str, float]:
    """Return the scores over finished documents, by column."""
    if not any(t.finished_score for t in tasks.values()):
        return {}
    found: dict[str, float | None] = {}
    for name, task in tasks.items():
        score = task.finished_score if task.finished_documents < task.documents else task.score
        found[name] = score.value if score else None
    counted = [task for group in suite.groups if group.counts for task in group.tasks]
    columns = {"suite": counted} | {group.name: group.tasks for group in suite.groups}
    for column, members in columns.items():
        values = [value for task in members if (value := found.get(task)) is not None]
        found[column] = float(np.mean(values)) if values and len(values) == len(members) else None
    return {column: value for column, value in found.items() if value is not None}


def thinking_title(header: Header) -> str:
    """`thinking off`, `thinking on, budget 2,048`; empty for a model that cannot think."""
    return f"thinking {header.how_thought}" if header.thinking else ""


def series(entry: Entry) -> tuple[str, ...]:
    """Return what the runs of one line share in a figure of score against cost: the model, asked otherwise the same."""
    header = entry.stated
    weights = header.model.weights_sha256 or header.engine.base_url or ""
    return header.model.name, weights, header.mode, str(header.num_fewshot), header.engine.name, str(entry.dtype)
