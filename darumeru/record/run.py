"""The record of a run: a folder that states what was asked, keeps every answer as it comes, and at last the scores.

header.json        everything that was set, and the fingerprints of model, tokenizer, data and prompts
journal.jsonl      while it runs: the answers, a line a batch
samples/TASK.jsonl when it is done: for each document the prompts, answers, gold answer and scores
scores.json        scores of tasks, groups and suite with intervals
manifest.json      written last: the run is complete, and these are its files
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.errors import BusyError, DarumeruError, UserError
from darumeru.files import dumps, file_sha256, read_json, read_jsonl, write_json, write_jsonl
from darumeru.requests import Answer

FORMAT = 1

Sample = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    path: Path

    @property
    def complete(self) -> bool:
        """Whether the run was finished."""
        return (self.path / "manifest.json").is_file()

    @property
    def header(self) -> dict[str, Any]:
        """What was asked, of which model, on which data."""
        header: dict[str, Any] = read_json(self.path / "header.json")
        return header

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of tasks, groups and suite.

        Raises:
            UserError: the run has none yet.
        """
        if not (self.path / "scores.json").is_file():
            raise UserError(f"Run '{self.path}' has no scores yet: it was not finished. Start the same command again.")
        scores: dict[str, Any] = read_json(self.path / "scores.json")
        return scores

    @property
    def tasks(self) -> list[str]:
        """The tasks of the run."""
        return list(self.header["tasks"])

    def samples(self, task: str) -> Iterator[Sample]:
        """The samples of a task.

        Raises:
            UserError: the run has no such task, or is not finished.
        """
        if task not in self.tasks:
            from darumeru.errors import unknown

            raise unknown("task of this run", task, self.tasks)
        for _, sample in read_jsonl(self.path / "samples" / f"{task}.jsonl"):
            yield sample

    def write(self, samples: dict[str, list[Sample]], scores: dict[str, Any], complete: bool) -> None:
        """Write samples and scores, and the manifest if nothing is missing."""
        (self.path / "manifest.json").unlink(missing_ok=True)
        for task, rows in samples.items():
            write_jsonl(self.path / "samples" / f"{task}.jsonl", rows)
        write_json(self.path / "scores.json", scores)
        if not complete:
            return
        names = ["header.json", "scores.json", *(f"samples/{task}.jsonl" for task in self.tasks)]
        sums = {name: file_sha256(self.path / name) for name in names}
        write_json(self.path / "manifest.json", {"format": FORMAT, "complete": True, "files": sums})
        # Every answer is in the samples now.
        (self.path / "journal.jsonl").unlink(missing_ok=True)

    def verify(self) -> None:
        """Compare the files with the manifest.

        Raises:
            DarumeruError: a file was changed or lost since the run was finished.
        """
        for name, want in read_json(self.path / "manifest.json")["files"].items():
            file = self.path / name
            if not file.is_file() or file_sha256(file) != want:
                raise DarumeruError(
                    f"'{file}' is not what the finished run wrote. 'darumeru rescore {self.path}' computes the scores again "
                    "from the samples; or delete the run's folder and run it again."
                )


def load_run(path: str | Path) -> Run:
    """A run by its folder.

    Raises:
        UserError: the folder holds no run.
    """
    run = Run(Path(path))
    if not (run.path / "header.json").is_file():
        raise UserError(f"'{path}' holds no run (no header.json). 'darumeru list runs' names those under runs/.")
    if kind := run.header.get("kind"):
        raise UserError(
            f"'{path}' is the record of another thing ({kind}), not of a run; an arena's is read in its index.html."
        )
    if run.header.get("format") != FORMAT:
        raise UserError(
            f"Run '{path}' has format {run.header.get('format')}, this version reads {FORMAT}. Use the version that wrote it."
        )
    return run


def find_runs(folder: Path) -> list[Run]:
    """All runs directly under a folder, by name."""
    if not folder.is_dir():
        return []
    return [Run(p) for p in sorted(folder.iterdir()) if (p / "header.json").is_file()]


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


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process computes the same run.

    Raises:
        BusyError: another process holds it.
    """
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"Another process is computing run '{folder}'. Wait for it, or stop it.") from None
        yield
    finally:
        os.close(handle)
