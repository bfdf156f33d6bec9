"""What must hold, whatever happened."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

_CODES = frozenset({0, 1, 2, 3, 130, 143})
_ALARMING = ("Traceback (most recent call last)", "This should not happen", "Fatal Python error")
_ERROR = re.compile(r"^(Error|Interrupted|Stopped|Usage)\b", re.MULTILINE)


def exit_told(code: int, text: str, signalled: bool) -> list[str]:
    """Check how a command ended: a known exit code, and a failure in a sentence and without a traceback.

    Args:
        code: of the command; negative where a signal ended it.
        text: what it printed.
        signalled: whether it was sent a signal that ends a process.
    """
    wrong = [f"it printed {sign!r}: {_near(text, sign)}" for sign in _ALARMING if sign in text]
    if code < 0 and not signalled:
        wrong.append(f"it died of signal {-code}: {text.strip()[-200:]}")
    if code >= 0 and code not in _CODES:
        wrong.append(f"its exit code was {code}")
    if code in (1, 2) and not _ERROR.search(text):
        wrong.append(f"it ended with code {code} and said no error: {text.strip()[-200:]!r}")
    return wrong


def _near(text: str, sign: str) -> str:
    return " | ".join(text[max(0, text.index(sign) - 300) :].strip().splitlines()[-25:])[-1500:]


def manifests_hold(folder: Path) -> list[str]:
    """Check that the files of every record that calls itself finished are those that it states."""
    wrong = []
    for manifest in folder.rglob("manifest.json"):
        for name, sha256 in json.loads(manifest.read_text(encoding="utf-8")).get("files", {}).items():
            file = manifest.parent / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
                wrong.append(f"{manifest.parent.name} is finished, and its {name} is not what its manifest states")
    return wrong


def locks_free(folder: Path) -> list[str]:
    """Check that nobody holds a lock."""
    wrong = []
    for lock in folder.rglob(".lock"):
        handle = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wrong.append(f"{lock.parent.name}/.lock is held")
        finally:
            os.close(handle)
    return wrong


def computed_once(log: Sequence[str], before: int, reached: Mapping[str, int]) -> list[str]:
    """Check that nothing was computed twice that was kept before.

    Args:
        log: lines of the spy (`spy`).
        before: how many of them are of the start that was disturbed.
        reached: training folder → the step of the newest checkpoint that this start left.
    """
    answers = Counter(line for line in log if line.startswith("answer "))
    wrong = [f"{line} was computed {count} times" for line, count in answers.items() if count > 1]
    for line in log[before:]:
        if line.startswith("step "):
            place, _, step = line.removeprefix("step ").rpartition(" ")
            if int(step) < reached.get(place, 0):
                wrong.append(f"step {step} was trained again, and checkpoint-{reached[place]} was there")
    return wrong
