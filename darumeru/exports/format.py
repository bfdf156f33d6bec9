"""What a format is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from darumeru.errors import UserError
from darumeru.record.header import Header
from darumeru.record.run import Run
from darumeru.record.scores import Scores

if TYPE_CHECKING:
    from darumeru.task import DarumeruTask


class NothingToTellError(UserError):
    """A format has no place for anything of a run."""


@dataclass(frozen=True)
class Export:
    """A run that is to be written in another format."""

    run: Run
    model: str
    """The model's name there."""
    include_path: tuple[Path, ...] = ()
    """Folders of the run's further tasks."""

    @cached_property
    def header(self) -> Header:
        """What was asked, of which model."""
        return self.run.header

    @cached_property
    def scores(self) -> Scores:
        """The scores.

        Raises:
            UserError: the run has none yet.
        """
        return self.run.scores

    @cached_property
    def tasks(self) -> dict[str, DarumeruTask]:
        """The tasks that have scores, without their data.

        Raises:
            UserError: one is not known here.
        """
        from darumeru.task.options import Wording
        from darumeru.task.suite import Catalogue

        catalogue, header = Catalogue(self.include_path), self.header
        if missing := [task for task in self.scores.tasks if task not in catalogue.tasks()]:
            raise UserError(
                f"Run '{self.run.path}' has the task '{missing[0]}', which is not known here. "
                "Name the folder of its YAML file with --include-path."
            )
        wording = {name: Wording(**task.wording) for name, task in header.tasks.items() if task.wording}
        return catalogue.load(list(self.scores.tasks), "mini", wording, header.likelihood)  # no row is read

    def version(self, task: str) -> str:
        """Return the version of a task that was asked, which may be another than the one that is here."""
        return self.header.tasks[task].version or "unknown"

    def check(self) -> None:
        """Make sure that the run is finished, unchanged, and was asked here.

        Raises:
            UserError: it is not finished, or was imported.
            DarumeruError: a file was changed since.
        """
        if not self.run.complete:
            raise UserError(f"Run '{self.run.path}' is not finished: start the same 'darumeru run' again.")
        if self.header.imported:
            raise UserError(
                f"Run '{self.run.path}' was imported from {self.header.imported.format}: use the file it was read from."
            )
        self.run.verify()


@dataclass(frozen=True)
class Format:
    """A format of another tool."""

    help: str
    write: Callable[[Export, Path], None]
    """(run, empty folder) → its files in the folder."""
    text: bool = False
    """Whether it is one file of text, which can be printed as well."""


def text_format(help: str, file: str, make: Callable[[Export], str]) -> Format:
    """Return the format of one file of text.

    Args:
        help: see `Format`.
        file: its name.
        make: returns the text of a run.
    """

    def write(export: Export, folder: Path) -> None:
        place = folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(make(export), encoding="utf-8")

    return Format(help, write, text=True)
