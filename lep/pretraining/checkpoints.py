"""The checkpoints of a training: plain model folders `checkpoint-STEP`, whole where the Trainer's state is there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError
from darumeru.files import file_sha256, read_json, write_json
from lep.pretraining.best import Choice

_STATE = "trainer_state.json"
_SUMS = ".sums.json"
MASTERS = "trained"
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
_RESUMABLE = 2
"""Checkpoints that keep what resuming needs (float32 values, optimizer state); older ones are models only."""
UNFINISHED = ".unfinished"
"""The folder, among checkpoints, in which one is being written."""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The whole checkpoints of a folder with their steps, rising."""
    found = []
    for path in folder.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match is not None and (path / _STATE).is_file():
            found.append((int(match[1]), path))
    return sorted(found)


def thin_out(folder: Path, limit: int | None, spared: int | None) -> None:
    """Delete what older checkpoints no longer need: all but the newest lose what only resuming needs.

    Also at the end of a training that was killed while it did so.

    Args:
        folder: of the checkpoints.
        limit: so many of the newest stay whole models, with the best one; None for all.
        spared: step of a checkpoint that stays too.
    """
    kept = checkpoints(folder)
    if limit:
        best = best_checkpoint(folder)
        for step, path in kept[:-limit]:
            if path != best and step != spared:
                shutil.rmtree(path)
    for _, path in kept[:-_RESUMABLE]:
        shutil.rmtree(path / MASTERS, ignore_errors=True)
        for state in (OPTIMIZER, SCHEDULER):
            (path / state).unlink(missing_ok=True)


def seal(folder: Path, known: MutableMapping[tuple[int, ...], str]) -> None:
    """Write down the SHA-256 of each file of a checkpoint, for `check`.

    Args:
        folder: of the checkpoint.
        known: sums by device, inode, size and time of change: shards that checkpoints share are read once.
    """
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state = path.stat()
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in known:
            known[key] = file_sha256(path)
        sums[path.relative_to(folder).as_posix()] = known[key]
    write_json(folder / _SUMS, sums)


def check(folder: Path) -> None:
    """Compare the files of a checkpoint that are there with its sums, which one of an earlier version has not.

    Raises:
        UserError: the sums cannot be read.
        DarumeruError: a file was changed since it was written.
    """
    if not (folder / _SUMS).is_file():
        return
    for name, sha256 in read_json(folder / _SUMS).items():
        file = folder / name
        if file.is_file() and file_sha256(file) != sha256:
            raise DarumeruError(
                f"'{file}' is not what the training wrote. Delete the folder {folder} and start the same command again: it "
                "resumes from the checkpoint before."
            )


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that `darumeru.watch`, or `note_best`, named the best one in `best.json`, if it is there."""
    if not (folder / "best.json").is_file():
        return None
    name = read_json(folder / "best.json").get("checkpoint")
    return next((path for _, path in checkpoints(folder) if path.name == name), None)


def note_best(
    folder: Path, choice: Choice, log: Sequence[Mapping[str, Any]], before: Mapping[str, float] | None = None
) -> bool:
    """Name the checkpoint that is best by held-out measures in `best.json`; False where none keeps the limits.

    Args:
        folder: of the checkpoints.
        choice: the rule.
        log: the Trainer's `log_history`.
        before: what limits in per cent are relative to, see `Choice.best`.
    """
    there = {step: path.name for step, path in checkpoints(folder)}
    found = choice.best(log, there, before)
    if found is None:
        return True
    step, kept = found
    write_json(
        folder / "best.json", {"metric": choice.measure, "step": step, "checkpoint": there[step], "within_limits": kept}
    )
    return kept
