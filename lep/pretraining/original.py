"""The model before the change of its vocabulary: found through `lep.json`, and measured on the same held-out texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import read_json, write_json
from lep.measure.held_out import HeldOut
from lep.model.checkpoint import locate
from lep.model.folders import folder_fingerprint
from lep.model.manifest import read_manifest

_FILE = "original.json"
_ROLES = ("instruct", "model")
"""Inputs of a stage that lead to the original."""


def find_original(model: Path, named: str | Path | None = None) -> Path | None:
    """Return the folder of the model whose vocabulary `lep init` or `lep propagate` changed; None where it is not found.

    A manifest names it by its folder's last part and its fingerprint; it is looked for beside the model, beside the folder
    that the model lies in, here, and in `models` here.

    Args:
        model: a folder that `lep init` or a later stage made.
        named: the original, if the user has named it: a folder or a hub id.

    Raises:
        UserError: there is no such model.
    """
    if named is not None:
        return locate(named)
    manifest = read_manifest(model)
    first = None if manifest is None else _first(manifest)
    if first is None:
        return None
    name = Path(str(first["name"])).name
    for place in (model.absolute().parent, model.absolute().parent.parent, Path.cwd(), Path.cwd() / "models"):
        folder = place / name
        if (folder / "config.json").is_file() and folder_fingerprint(folder) == first["fingerprint"]:
            return folder
    return None


def need_original(model: Path, named: str | Path | None) -> Path:
    """Return what `find_original` finds.

    Raises:
        UserError: it finds nothing.
    """
    found = find_original(model, named)
    if found is None:
        raise UserError(
            f"The model that {model.name} had before its vocabulary was changed is not found: no lep.json names it, or it does "
            "not lie beside. Name it with --original MODEL."
        )
    return found


def measure_original(folder: Path, held_out: HeldOut, output: Path, arguments: Any) -> dict[str, float]:
    """Return the held-out measures of the original, computed as the training computes; kept in `output`.

    Args:
        folder: the original.
        held_out: texts.
        output: the folder of the training.
        arguments: of the Trainer.
    """
    import torch
    from transformers import AutoTokenizer

    from lep.model.loading import load_model

    key = {"model": folder_fingerprint(folder), "texts": held_out.fingerprint, "bfloat16": bool(arguments.bf16)}
    place = output / _FILE
    with arguments.main_process_first(local=False):
        known = read_json(place) if place.is_file() else None
        if known is None or any(known.get(name) != value for name, value in key.items()):
            dtype = torch.bfloat16 if arguments.bf16 else torch.float32
            model = load_model(folder, dtype, device=arguments.device)
            measures = held_out.measure(model, AutoTokenizer.from_pretrained(folder))
            known = {**key, "measures": measures}
            if arguments.process_index == 0:
                write_json(place, known)
    found: dict[str, float] = known["measures"]
    return found


def _first(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model that the newest stage which changed the vocabulary was given: `lep init`, or `lep propagate`."""
    past: Mapping[str, Any] | None = manifest
    while past is not None:
        inputs, history = past.get("inputs", {}), past.get("history", {})
        role = next((role for role in _ROLES if role in inputs), None)
        if role is not None and past.get("stage") in ("init", "propagate"):
            found: Mapping[str, Any] = inputs[role]
            return found
        past = history.get(role) if role is not None else None
    return None
