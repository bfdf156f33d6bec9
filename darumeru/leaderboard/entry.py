"""Entries of a board: a run or a published row as an entry, its tasks as results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darumeru.leaderboard.thinking import Spent
from darumeru.record.draws import first_split
from darumeru.record.header import Header
from darumeru.record.scores import Scores, TaskResult


class Bounded(NamedTuple):
    """A score with its 95 % bounds, which a published one lacks."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Result:
    """One task of one run."""

    score: Bounded
    record: TaskResult
    """As the run states it."""
    key: str
    """Fingerprint of the documents: only results with equal keys can be paired."""
    version: str | None
    """Of the task: what was asked, and how."""
    draws: NDArray[np.float32] | None
    """(B,) bootstrap values; entry b of every result with this key weighs the documents alike."""
    df: float
    """Degrees of freedom of the draws."""
    reproduced: bool
    """True if the samples give the recorded score."""
    content: str | None = None
    """Fingerprint of the documents themselves, by which other tools' results are paired with ours; None if not asked for."""

    @property
    def scoring(self) -> int:
        """Return the version of the rules that scored it; a record from before they were numbered has the first."""
        return self.record.scoring or 1

    @property
    def rules(self) -> tuple[str, str | None, int]:
        """Return what two results must share to be comparable: documents, version of the task, version of its scoring."""
        return self.key, self.version, self.scoring

    @property
    def documents(self) -> int:
        """Return how many were answered."""
        return self.record.documents

    @property
    def units(self) -> int:
        """Return how many of them are independent."""
        return self.record.units

    @property
    def higher_is_better(self) -> bool:
        """Return false for bits per byte."""
        return self.record.higher_is_better


@dataclass(frozen=True)
class Entry:
    """A run, or a published row, on a board."""

    id: str
    name: str
    published: bool
    mode: str
    num_fewshot: int | None
    scores: dict[str, Bounded]
    """By `suite`, name of a group, and name of a task."""
    tasks: dict[str, Result] = field(default_factory=dict)
    header: Header | None = None
    """None for a published row."""
    record: Scores | None = None
    path: Path | None = None
    base: str | None = None
    vocab: str | None = None
    method: str | None = None
    url: str | None = None
    note: str | None = None
    symbols_per_token: tuple[float | None, float | None] = (None, None)
    """Russian, English."""
    tokens_per_second: float | None = None
    spent: Spent | None = None
    """What its answers cost; None for a published row."""

    @property
    def imported(self) -> bool:
        """Return whether it is a record of another tool's results."""
        return self.header is not None and self.header.imported is not None

    @property
    def tool(self) -> str:
        """Return the tool that made its results, with its version; empty for a run of ours and a published row."""
        facts = self.header.imported if self.header else None
        return " ".join(filter(None, (facts.format, facts.version))) if facts else ""

    @property
    def thinks(self) -> str | None:
        """Return `on` or `off` for a run of a model that can think."""
        return self.header.thinking.mode if self.header and self.header.thinking else None

    @property
    def thinking_budget(self) -> int | None:
        """Return the most tokens of a thought, where it thinks."""
        return self.header.thinking.budget if self.header and self.header.thinking else None

    @property
    def approximate(self) -> list[str]:
        """Return the tasks with approximate answers."""
        return [name for name, task in self.tasks.items() if task.record.approximate_answers]

    @property
    def date(self) -> str | None:
        """Return the day the run was finished."""
        finished = self.record.finished if self.record else None
        return finished[:10] if finished else None

    @property
    def stated(self) -> Header:
        """Return the header of a run; a published row has none."""
        assert self.header is not None  # noqa: S101 - asked of runs only
        return self.header

    @property
    def dtype(self) -> str | None:
        """Return the type that the engine took, or the one that was asked where it does not say."""
        taken = self.record.engine.get("dtype") if self.record else None
        return str(taken or self.stated.engine.dtype)


@dataclass(frozen=True)
class Problem:
    """A run that is not on the board, and why."""

    name: str
    reason: str


def data_title(header: Header) -> str:
    """Return where a run's test rows came from, in words: `mini`, `hub`, the name of the bundle or tool, or several of them."""
    sources = []
    for task in header.tasks.values():
        source = str(first_split(task.data)[1].get("source", "?"))
        sources.append("hub" if source.startswith("hub") else source.removeprefix("bundle:").removeprefix("import:"))
    return " + ".join(dict.fromkeys(sources))
