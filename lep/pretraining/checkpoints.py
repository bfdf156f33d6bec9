"""The checkpoints of a training: plain model folders `checkpoint-STEP`, whole where the Trainer's state is there."""

from __future__ import annotations

import re
from pathlib import Path

from darumeru.files import read_json

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
    """The checkpoint that `darumeru.watch` named the best one in `best.json`, if it is there."""
    if not (folder / "best.json").is_file():
        return None
    name = read_json(folder / "best.json").get("checkpoint")
    return next((path for _, path in checkpoints(folder) if path.name == name), None)
