"""An output folder belongs to one training: `pretrain.json` says which; the same command resumes it, another is refused.

`held-out.json` says which texts it is measured on: along a training, and in reports about it, a name stands for one text.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import is_empty, read_json, write_json
from darumeru.record.folder import exclusive
from lep.model.manifest import read_manifest

_FILE, _TEXTS = "pretrain.json", "held-out.json"


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


def claim_texts(output: Path, texts: Mapping[str, str], *, write: bool) -> None:
    """Note the held-out texts that a training is measured on from now on; more may come, none may become another.

    Args:
        output: the folder of the training.
        texts: fingerprint of each, by name.
        write: whether this process writes.

    Raises:
        UserError: a name stood for another text before.
    """
    known = measured_texts(output)
    for name, text in texts.items():
        if known.get(name, text) != text:
            raise UserError(
                f"The training in {output} was measured so far on another held-out text {name}, or on another length of it, and "
                f"its measures could not be compared. Give the text as it was, or name this one otherwise ({name}2=FILE)."
            )
    if write and texts.keys() - known.keys():
        write_json(output / _TEXTS, {**known, **texts})


def measured_texts(output: Path) -> dict[str, str]:
    """Return the held-out texts of a training: name → fingerprint, in the order in which they came.

    Nothing where an earlier version measured.
    """
    path = output / _TEXTS
    return dict(read_json(path)) if path.is_file() else {}


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
