"""An output folder belongs to one training: `pretrain.json` says which; the same command resumes it, another is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import is_empty, read_json, write_json
from darumeru.record.folder import exclusive
from lep.model.manifest import read_manifest

_FILE = "pretrain.json"


def claim(
    output: Path, identity: Mapping[str, Any], stage: str, *, model: Path, force: bool, write: bool
) -> dict[str, Any] | None:
    """Make a folder a training's own; returns the manifest, where the training is done already.

    Args:
        output: the folder.
        identity: what the training depends on: fingerprints of the model and of texts, and `settings`.
        stage: that a manifest of this training has.
        model: that is trained; never deleted.
        force: begin anew in a folder that holds something else.
        write: whether this process writes.

    Raises:
        UserError: the folder is another's, or another process trains in it.
    """
    path = output / _FILE
    if output.is_dir() and not is_empty(output):
        found = read_json(path) if path.is_file() else None
        if found == identity:
            manifest = read_manifest(output)
            return manifest if manifest is not None and manifest["stage"] == stage else None
        if not force:
            raise UserError(
                f"{_difference(output, found, identity)} Name another folder, or add --force to begin anew."
            )
        if write:
            if model.resolve().is_relative_to(output):
                raise UserError(f"The model lies inside the output folder {output}, so --force would delete it.")
            with exclusive(output):  # not under a training that goes on
                shutil.rmtree(output)
    if write:
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, identity)
    return None


def _difference(output: Path, found: Any, wanted: Mapping[str, Any]) -> str:
    if found is None:
        held = (
            "checkpoints of a run that this command did not begin" if (output / "checkpoints").exists() else "something"
        )
        return f"The output folder {output} holds {held}."
    there, here = found["settings"], wanted["settings"]
    changed = [
        f"{key} {there.get(key)!r} there, {here.get(key)!r} now"
        for key in {**here, **there}
        if there.get(key) != here.get(key)
    ]
    others = {**wanted, **found}.keys() - {"settings"}
    changed += [f"another {key}" for key in sorted(others) if found.get(key) != wanted.get(key)]
    return f"The output folder {output} holds a training with other settings ({'; '.join(changed)})."
