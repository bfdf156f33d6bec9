"""Facts about a folder and how it was made: `lep inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lep.model.checkpoint import locate, open_checkpoint
from lep.model.manifest import read_manifest
from lep.tokenizer.vocabulary import Vocabulary


@dataclass(frozen=True)
class Inspection:
    """Facts about a folder, and the chain of stages that made it (newest first, inputs indented by their depth)."""

    facts: dict[str, str]
    stages: list[tuple[int, str, dict[str, Any]]]


def inspect_folder(source: str | Path) -> Inspection:
    """Read a model or tokenizer folder and the manifests in it.

    Raises:
        UserError: there is no such folder, or what is in it is broken.
    """
    folder = locate(source)
    facts: dict[str, str] = {}
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        model = open_checkpoint(folder)
        found = model.embeddings
        facts["architecture"] = model.architecture
        facts["size"] = f"{model.bytes / 1e9:.2f} GB in {len(model.metadata)} file(s)"
        facts["embedding"] = f"{found.input.name}: {found.rows:,} x {found.dim:,} {found.input.dtype}"
        facts["head"] = "tied to the embedding" if found.head is None else f"{found.head.name} {found.head.dtype}"
        if found.bias is not None:
            facts["head bias"] = found.bias.name
    if (folder / "tokenizer.json").is_file():
        vocabulary = Vocabulary.load(folder)
        facts["tokenizer"] = (
            f"{vocabulary.family}, {len(vocabulary.strings):,} tokens ({len(vocabulary.added)} added), "
            f"{len(vocabulary.merges):,} merges"
        )
    manifest = read_manifest(folder)
    stages: list[tuple[int, str, dict[str, Any]]] = []
    if manifest is not None:
        _walk(manifest, "this folder", 0, stages)
    return Inspection(facts, stages)


def _walk(manifest: Mapping[str, Any], role: str, depth: int, stages: list[tuple[int, str, dict[str, Any]]]) -> None:
    stages.append((depth, role, {key: value for key, value in manifest.items() if key != "history"}))
    for name, past in manifest.get("history", {}).items():
        _walk(past, name, depth + 1, stages)
