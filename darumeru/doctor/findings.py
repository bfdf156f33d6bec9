"""One thing that was looked at, and how programs are asked that may be missing, broken or slow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["ok", "note", "missing", "broken"]
"""Well; worth a look; not installed and not needed; needed and not working."""

PATIENCE = 300.0
"""Seconds that a package may take to be imported: a cold disk is slow."""


@dataclass(frozen=True)
class Finding:
    """One line of the table; `advice` is one sentence that says what to do."""

    part: str
    name: str
    value: str
    state: State = "ok"
    advice: str = ""


def ask(code: str, *arguments: str) -> dict[str, Any]:
    """Run Python code in a process of its own; the JSON object that its last line prints, or `error` with the reason."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{type(error).__name__}: it did not answer within {PATIENCE:.0f} s"}
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        return answer if isinstance(answer, dict) else {"error": f"it answered {answer!r}"}
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        return {"error": last[:300]}


def gigabytes(size: int) -> str:
    """Return a size of memory or disk in words."""
    return f"{size / 1e9:.1f} GB"
