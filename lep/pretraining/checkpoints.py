"""The checkpoints of a training: plain model folders `checkpoint-STEP`, whole where the Trainer's state is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import read_json, write_json
from lep.pretraining.best import Choice

_STATE = "trainer_state.json"


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The whole checkpoints of a folder with their steps, rising."""
    found = []
    for path in folder.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match is not None and (path / _STATE).is_file():
            found.append((int(match[1]), path))
    return sorted(found)


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
