"""A check, what it needs, and what the machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]

Verdict = Literal["ok", "DIFFERS", "FAILED", "skipped"]


class FailedError(Exception):
    """A process of a check that ended with an error; its last words."""


class LacksError(Exception):
    """What a check lacks, where only running it shows that."""


@dataclass(frozen=True)
class Place:
    """Where checks work, and on what."""

    folder: Path
    """Of this check alone."""
    tiny: Path
    """A chat model of random weights."""
    model: Path | None
    """A real one, for speed; SmolLM2-135M-Instruct where None and a GPU is there."""
    device: str
    """cpu or cuda."""
    also: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a check found."""

    text: str
    ok: bool
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    expected: str
    run: Callable[[Place], Found]
    gpus: int = 0
    packages: tuple[str, ...] = ()
    absent_gpu: bool = False
    """Whether it is for machines without a GPU."""

    def lacks(self, gpus: int) -> str:
        """Return why it cannot run here; empty where it can."""
        if gpus < self.gpus:
            return f"needs {self.gpus} GPU{'s' if self.gpus > 1 else ''}, {gpus or 'none'} here"
        if self.absent_gpu and gpus:
            return "the same runs on the GPU"
        missing = [name for name in self.packages if find_spec(name) is None]
        return f"needs the package {', '.join(missing)}" if missing else ""


def python(arguments: Sequence[str | Path], environment: dict[str, str] | None = None, timeout: float = 3600.0) -> str:
    """Run Python with arguments in the repository; what it printed.

    Raises:
        FailedError: it ended with an error, or did not end.
    """
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise FailedError(f"code {done.returncode}: {lines[-1] if lines else 'no word'}"[:400])
    return done.stdout


def answer_of(module: str, *arguments: str | Path, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a module of this folder in a process of its own; the JSON object that its last line prints."""
    printed = python(["-m", f"benchmarks.gpu_check.{module}", *arguments], environment)
    answer: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return answer
