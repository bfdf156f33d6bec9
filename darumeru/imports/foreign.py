"""The results of another tool, as they are read from its files."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.record.header import EngineFacts, ModelFacts, ThinkingFacts
from darumeru.record.sample import Sample


@dataclass
class ForeignTask:
    """A task of another tool's results."""

    samples: list[Sample]
    """By number; scored with the values that the file states."""
    version: str | None = None
    scoring: int | None = None
    """Of our scoring rules, where the file states it."""
    documents: int | None = None
    """How many there are."""
    num_fewshot: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """Metric → the value that the file states of the task."""
    aggregates: dict[str, str] = field(default_factory=dict)
    """Metric → how that is made of the documents' values."""
    lower: set[str] = field(default_factory=set)
    """Metrics of which the less the better."""
    primary: str | None = None
    """The metric that the file names first."""
    by_label: bool = False
    """Whether samples have what was a request for each label, as in lm-eval, and not one for each question of our tasks."""
    source: dict[str, Any] = field(default_factory=dict)
    """Where the documents come from, as the file says."""


@dataclass
class Foreign:
    """The results of a model."""

    model: ModelFacts
    engine: EngineFacts
    mode: str
    tasks: dict[str, ForeignTask]
    """By name; one or more."""
    files: list[Path]
    """From which it was read; the first one names it."""
    version: str | None = None
    """Of the tool."""
    failed: dict[str, str] = field(default_factory=dict)
    """Task → why it is left out."""
    seed: int = 0
    limit: int | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    likelihood: bool = False
    thinking: ThinkingFacts | None = None
    suite: str | None = None
    """Name of the suite, where the file states one."""
    finished: str | None = None


@dataclass(frozen=True)
class Reader:
    """A format that can be imported."""

    help: str
    find: Callable[[Path], list[Path]]
    """The files of results in a folder, or the file itself if it is one."""
    read: Callable[[Path], Foreign]
    """
    Raises:
        UserError: the file, or one beside it, is not as the tool writes it; in one sentence.
    """


def number(value: Any, where: str, what: str) -> float:
    """Return a finite number.

    Args:
        value: what stands there.
        where: file and line, for the message.
        what: it is, for the message.

    Raises:
        UserError: it is none.
    """
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    raise UserError(f"{where}: {what} is {value!r}, not a finite number: such results cannot be imported.")


def drawn_how(settings: Any) -> dict[str, Any]:
    """Return how tokens were drawn, of the settings that our records have as well."""
    known = ("do_sample", "temperature", "top_p", "top_k", "min_p", "repeats")
    found = settings if isinstance(settings, dict) else {}
    return {key: found[key] for key in known if isinstance(found.get(key), bool | int | float)}
