"""`lep.json`: what made a folder. Written last, so that its presence means the folder is whole.

Keys: `format` (1), `stage`, `created` (UTC), `inputs` (role → name, fingerprint), `settings`, `measures`, `versions`,
and `history` (the manifests of the inputs by role, so that a chain of stages can be read back from its last folder).
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from darumeru.files import read_json, write_json
from lep.model.folders import folder_fingerprint

NAME = "lep.json"
_PACKAGES = (
    "darumeru", "torch", "transformers", "accelerate", "peft", "trl", "tokenizers", "safetensors", "numpy", "scipy", "datasketch",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_manifest(
    folder: Path,
    stage: str,
    *,
    inputs: Mapping[str, Path],
    settings: Mapping[str, Any],
    measures: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `folder/lep.json` and return its content. Input folders are named by their last part, never by path."""
    manifest: dict[str, Any] = {
        "format": 1,
        "stage": stage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": {
            role: {"name": path.resolve().name, "fingerprint": folder_fingerprint(path)}
            for role, path in inputs.items()
        },
        "settings": dict(settings),
        "measures": dict(measures),
        "versions": versions(),
    }
    history = {role: read_manifest(path) for role, path in inputs.items()}
    manifest["history"] = {role: past for role, past in history.items() if past is not None}
    write_json(folder / NAME, manifest)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or None where it was not made by `lep`."""
    path = folder / NAME
    if not path.is_file():
        return None
    content = read_json(path)
    return content if isinstance(content, dict) else None


def added_ids(manifest: Mapping[str, Any] | None) -> list[int]:
    """Return the ids of the tokens that the last `lep vocab` command added to a folder, by its chain of manifests; [] unknown.

    The chain is followed through the tokenizer (init), the adapted model (propagate) and the model that was trained.
    """
    if manifest is None:
        return []
    added = manifest.get("measures", {}).get("added_ids")
    if added:
        return [index for first, last in added for index in range(first, last + 1)]
    history = manifest.get("history", {})
    return next((added_ids(history[role]) for role in ("tokenizer", "adapted", "model") if role in history), [])
