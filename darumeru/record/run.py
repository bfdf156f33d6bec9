"""The record of a run: a folder that states what was asked, keeps every answer as it comes, and at last the scores.

header.json        everything that was set, and the fingerprints of model, tokenizer, data and prompts
journal.jsonl      while it runs: the answers, a line a batch
samples/TASK.jsonl when it is done: for each document the prompts, answers, gold answer and scores
scores.json        scores of tasks, groups and suite with intervals
manifest.json      written last: the run is complete, and these are its files
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darumeru.errors import UserError, unknown
from darumeru.files import read_json, write_json, write_jsonl
from darumeru.record.folder import exclusive, is_sealed, seal, unseal, verify
from darumeru.record.header import FORMAT, Header
from darumeru.record.journal import Journal
from darumeru.record.model import parse
from darumeru.record.sample import Sample, read_samples
from darumeru.record.scores import Scores

__all__ = ["FORMAT", "Header", "Journal", "Run", "Sample", "Scores", "exclusive", "find_runs", "load_run"]


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    path: Path

    @property
    def complete(self) -> bool:
        """Return whether the run was finished."""
        return is_sealed(self.path)

    @property
    def header(self) -> Header:
        """Return what was asked, of which model, on which data.

        Raises:
            UserError: it is the header of another kind of record, of another version, or broken.
        """
        value = read_json(self.path / "header.json")
        if isinstance(value, dict) and (kind := value.get("kind")):
            raise UserError(
                f"'{self.path}' is the record of another thing ({kind}), not of a run; an arena's is read in its index.html."
            )
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise UserError(
                f"Run '{self.path}' has format {value.get('format')}, this version reads {FORMAT}. "
                "Use the version that wrote it."
            )
        return parse(Header, value, "header.json")

    @property
    def scores(self) -> Scores:
        """Return the scores of tasks, groups and suite.

        Raises:
            UserError: the run has none yet, or they are broken.
        """
        if not (self.path / "scores.json").is_file():
            raise UserError(f"Run '{self.path}' has no scores yet: it was not finished. Start the same command again.")
        return parse(Scores, read_json(self.path / "scores.json"), "scores.json")

    @property
    def tasks(self) -> list[str]:
        """Return the tasks of the run."""
        return list(self.header.tasks)

    def samples(self, task: str) -> Iterator[Sample]:
        """Yield the samples of a task.

        Raises:
            UserError: the run has no such task, or is not finished.
        """
        if task not in self.tasks:
            raise unknown("task of this run", task, self.tasks)
        yield from read_samples(self.path / "samples" / f"{task}.jsonl")

    def write(self, samples: Mapping[str, Sequence[Sample]], scores: Scores, complete: bool) -> None:
        """Write samples and scores, and the manifest if nothing is missing."""
        unseal(self.path)
        for task, rows in samples.items():
            write_jsonl(self.path / "samples" / f"{task}.jsonl", (row.to_json() for row in rows))
        write_json(self.path / "scores.json", scores.to_json())
        if complete:
            seal(self.path, ["header.json", "scores.json", *(f"samples/{task}.jsonl" for task in self.tasks)])

    def verify(self) -> None:
        """Compare the files with the manifest.

        Raises:
            DarumeruError: a file was changed or lost since the run was finished.
        """
        remedy = (
            f"'darumeru rescore {self.path}' computes the scores again from the samples; "
            "or delete the run's folder and run it again."
        )
        verify(self.path, "run", remedy)


def load_run(path: str | Path) -> Run:
    """Return a run by its folder.

    Raises:
        UserError: the folder holds no run, or one that this version cannot read.
    """
    run = Run(Path(path))
    if not (run.path / "header.json").is_file():
        raise UserError(f"'{path}' holds no run (no header.json). 'darumeru list runs' names those under runs/.")
    _ = run.header
    return run


def find_runs(folder: Path) -> list[Run]:
    """Return all runs directly under a folder, by name; records of other kinds are left out."""
    if not folder.is_dir():
        return []
    return [Run(p) for p in sorted(folder.iterdir()) if (p / "header.json").is_file() and not _other(p)]


def _other(folder: Path) -> bool:
    """Return whether a folder with a header is the record of something else; a broken header counts as a run's."""
    try:
        value = read_json(folder / "header.json")
    except UserError:
        return False
    return isinstance(value, dict) and "kind" in value
