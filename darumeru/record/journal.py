"""journal.jsonl: the answers of a run that is under way, a line a batch."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import dumps, replacing
from darumeru.requests import Answer


class Journal:
    """The answers of a run that is under way, a line a batch: {"seconds": of the engine, "answers": […], "crc": of these}.

    Raises:
        UserError: the file is a symbolic link: what it points to would be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.seconds: list[tuple[float, list[str]]] = []
        self.interleaved = False
        """Whether the engine worked on other requests too while it answered a batch."""
        if path.is_symlink():
            raise UserError(
                f"'{path}' is a symbolic link, which no run writes. Delete it, and start the command again."
            )
        self._read()

    def _read(self) -> None:
        """Read what an earlier process left, and drop lines that are not as they were written: their answers are asked again.

        The last one is such a line where the process was killed while it wrote it.
        """
        if not self.path.exists():
            return
        whole: list[int] = []
        """Bytes of each line; 0 for one that is to be dropped."""
        with self.path.open("rb") as file:
            for line in file:
                entry = _entry(line)
                whole.append(len(line) if entry else 0)
                if entry:
                    self._take([Answer.from_json(a) for a in entry["answers"]], float(entry["seconds"]))
                    self.interleaved |= bool(entry.get("interleaved"))
        kept = sum(whole)
        if kept == self.path.stat().st_size:
            return
        if not any(whole[whole.index(0) :]):
            os.truncate(self.path, kept)  # works on a full disk too
            return
        with self.path.open("rb") as file, replacing(self.path) as new:
            new.writelines(line for line, size in zip(file, whole, strict=True) if size)

    def _take(self, batch: Sequence[Answer], seconds: float) -> None:
        self.seconds.append((seconds, [a.id for a in batch]))
        self.answers |= {a.id: a for a in batch}

    def append(self, batch: Sequence[Answer], seconds: float, interleaved: bool) -> None:
        """Keep a batch of answers; once this returns, the end of the process does not lose them."""
        entry = {"seconds": round(seconds, 6), "answers": [a.to_json() for a in batch]}
        entry |= {"interleaved": True} if interleaved else {}
        line = dumps(entry | {"crc": _crc(entry)}) + "\n"
        self.interleaved |= interleaved
        with self.path.open("ab") as file:
            file.write(line.encode())
        self._take(batch, seconds)


def _crc(entry: dict[str, Any]) -> int:
    return zlib.crc32(dumps(entry).encode())


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return a line of a journal, or None where it is not what was written; one of an earlier version has no `crc`."""
    if not line.endswith(b"\n"):
        return None
    try:
        entry = json.loads(line)
        crc = entry.pop("crc", None)
        if crc is not None and crc != _crc(entry):
            return None
        if all(isinstance(Answer.from_json(answer).id, str) for answer in entry["answers"]):
            float(entry["seconds"])
            return dict(entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return None
