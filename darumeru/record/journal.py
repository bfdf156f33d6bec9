"""journal.jsonl: the answers of a run that is under way, a line a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from darumeru.files import dumps
from darumeru.requests import Answer


class Journal:
    """The answers of a run that is under way, a line a batch: {"seconds": of the engine, "answers": […]}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.seconds: list[tuple[float, list[str]]] = []
        self.interleaved = False
        """Whether the engine worked on other requests too while it answered a batch."""
        self._read()

    def _read(self) -> None:
        """Read what an earlier process left; a line that it did not finish is cut off."""
        if not self.path.exists():
            return
        good = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    self._take([Answer.from_json(a) for a in entry["answers"]], float(entry["seconds"]))
                    self.interleaved |= bool(entry.get("interleaved"))
                except (ValueError, KeyError, TypeError):
                    break
                good += len(line)
        with self.path.open("r+b") as file:
            file.truncate(good)

    def _take(self, batch: Sequence[Answer], seconds: float) -> None:
        self.seconds.append((seconds, [a.id for a in batch]))
        self.answers |= {a.id: a for a in batch}

    def append(self, batch: Sequence[Answer], seconds: float, interleaved: bool) -> None:
        """Keep a batch of answers; once this returns, the end of the process does not lose them."""
        entry = {"seconds": round(seconds, 6), "answers": [a.to_json() for a in batch]}
        line = dumps(entry | ({"interleaved": True} if interleaved else {})) + "\n"
        self.interleaved |= interleaved
        with self.path.open("ab") as file:
            file.write(line.encode())
        self._take(batch, seconds)
