"""The work folder of a calibration, `OUTPUT.training`: its settings and the checkpoints that were written whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import read_json, write_json

_SETTINGS = "calibration.json"
WHOLE = "whole"
"""The file that marks a checkpoint as whole: written when all of its other files are."""


def claim(work: Path, identity: dict[str, Any], force: bool) -> None:
    """See to it that the checkpoints in `work` are those of these settings.

    Raises:
        UserError: they are of others (and not `force`).
    """
    file = work / _SETTINGS
    old = read_json(file) if file.is_file() else None
    for path in work.glob("checkpoint-*"):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path)  # a kill came while it was written
    if old == identity:
        return
    if old is not None and not force:
        differ = sorted(key for key in identity.keys() | old.keys() if identity.get(key) != old.get(key))
        raise UserError(
            f"{work} holds the checkpoints of a calibration with other settings ({', '.join(differ)}). "
            "Repeat its command, name another output, or add --force to begin anew."
        )
    for path in work.glob("checkpoint-*"):
        shutil.rmtree(path)
    write_json(file, identity)


def newest_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = [path for path in work.glob("checkpoint-*") if (path / WHOLE).is_file()]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step of a checkpoint; -1 where its name is none of a checkpoint."""
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1
