"""What a watch has done, as the run records tell it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.evaluation import Settings, asked
from darumeru.files import check_output
from darumeru.race.challenge import lost
from darumeru.record.folder import tidy
from darumeru.record.run import Run, find_runs
from darumeru.watch.checkpoints import Checkpoint
from darumeru.watch.curve import Point, point_of


@dataclass(frozen=True)
class Record:
    """The needed part of a complete run record."""

    point: Point
    weights: list[list[Any]]
    finished: str


class Records:
    """The complete records of a training's checkpoints.

    Args:
        output: folder of the run records.
        name: the training's, in records.
        settings: of the runs.
        races: whether the run of a checkpoint that is worse than the best counts too, though it is not complete.

    Raises:
        UserError: no records can be written there.
    """

    def __init__(self, output: Path, name: str, settings: Settings, races: bool) -> None:
        check_output(output)
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise UserError(f"No right to write '{output}'. Name a folder that you may write to.")
        self._output, self._name, self._settings, self._races = output, name, settings, races
        self._found: dict[Path, Record | None] = {}  # None for those of something else
        self._finished: dict[tuple[int, Any], Path] = {}  # by step and signature of the checkpoint

    def look(self) -> None:
        """Read what is new in the folder."""
        for run in find_runs(self._output):
            if run.path not in self._found and (run.complete or (self._races and lost(run))):
                self.read(run)

    def read(self, run: Run) -> None:
        """Read a record, again if it is known.

        Raises:
            DarumeruError: it is finished, and was changed since.
        """
        header = run.header
        where, training = header.where, header.training
        ours = training is not None and training.run == self._name and where.get("asked") == asked(self._settings)
        worse = lost(run)
        finished = worse.at if worse else str(run.scores.finished) if ours else ""
        if ours and run.complete:
            run.verify()
            tidy(run.path)
        self._found[run.path] = Record(point_of(run), where["weights"], finished) if ours else None

    def _ours(self) -> list[Record]:
        return [r for r in list(self._found.values()) if r is not None]

    def finish(self, checkpoint: Checkpoint, run: Run) -> None:
        """Note that a record is a checkpoint's, though the times of the files may differ: a copy has the same weights."""
        self.read(run)
        self._finished[checkpoint.step, checkpoint.signature] = run.path

    def of(self, checkpoint: Checkpoint) -> Record | None:
        """Return the record of a checkpoint's weights; None where they were not evaluated."""
        same = [r for r in self._ours() if r.point.step == checkpoint.step and r.weights == checkpoint.weights]
        if path := self._finished.get((checkpoint.step, checkpoint.signature)):
            same = [r] if (r := self._found[path]) is not None else same
        return max(same, key=lambda r: r.finished, default=None)

    def points(self, checkpoints: Mapping[int, Checkpoint]) -> list[Point]:
        """Return the curve: for each step the record of the checkpoint that is there, else the one that was finished last.

        A checkpoint with weights that were not evaluated yet has no point, and steps behind the newest checkpoint have none: what
        there is of them is of an earlier training in the same folder.
        """
        newest = max(checkpoints, default=None)
        last = {r.point.step: r for r in sorted(self._ours(), key=lambda r: r.finished)}
        steps = sorted(step for step in last if newest is None or step <= newest)
        records = [self.of(checkpoints[step]) if step in checkpoints else last[step] for step in steps]
        return [r.point for r in records if r is not None]
