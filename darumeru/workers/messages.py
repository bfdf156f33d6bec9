"""What passes between the driver and its workers; all of it is plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.requests import Answer, Request

if TYPE_CHECKING:
    from darumeru.engines import EngineOptions


@dataclass(frozen=True)
class ToLoad:
    """A model that a worker is to load in place of the one that it holds."""

    key: str
    """By which answers name it."""
    engine: str
    path: Path
    """Its folder, which every node must see under this path."""
    tokenizer_path: Path | None
    eos_ids: frozenset[int]
    options: EngineOptions
    probe: tuple[Request, ...]
    """Requests to which every worker must give the same answers."""


@dataclass(frozen=True)
class Started:
    """A worker's process runs."""

    node: str
    process: int
    versions: Mapping[str, str]
    """Package → version, of all that computes."""


@dataclass(frozen=True)
class Loaded:
    """A worker has loaded a model."""

    key: str
    facts: Mapping[str, Any]
    """See `Engine.describe`."""
    probe: tuple[Answer, ...]


@dataclass(frozen=True)
class Answered:
    """Answers of the model that a worker holds."""

    key: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Refused:
    """A worker cannot load a model, or its engine failed; the worker itself is well."""

    key: str
    error: str
    exit_code: int
    """See `DarumeruError.exit_code`."""


Message = Started | Loaded | Answered | Refused


def bare(request: Request) -> Request:
    """Return a request without what no engine of a worker reads: its prompt's text, and the conversation."""
    return replace(request, prompt=request.packed, text="", messages=())
