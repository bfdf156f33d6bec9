"""The files of a model's weights: which there are, which are loaded, and what tensors they hold."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from darumeru.errors import UserError
from darumeru.files import read_json

_TRAINER_FILES = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""Files that a Trainer saves beside the weights."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file, by its header."""

    dtype: str
    """As safetensors calls it: `F32`, `BF16`, …"""
    values: int
    """How many numbers it holds."""
    bytes: int


def weight_files(path: Path) -> list[Path]:
    """Return the safetensors files of a model folder, all there.

    Raises:
        UserError: there are none, or one is missing.
    """
    index = path / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index).get("weight_map", {}).values()))
        if any("/" in s or "\\" in s for s in shards):
            raise UserError(f"'{index}' names shards outside the model folder.")
        missing = [s for s in shards if not (path / s).is_file()]
        if missing:
            raise UserError(
                f"Model folder '{path}' is incomplete: '{missing[0]}' is missing. Copy or download it again."
            )
        return [path / s for s in shards]
    if files := sorted(path.glob("*.safetensors")):
        return files
    if any(p.suffix in (".bin", ".pt", ".pth") and p.name not in _TRAINER_FILES for p in path.iterdir()):
        raise UserError(
            f"Model folder '{path}' has only pickle weights, which can run code when they are loaded. Convert it with "
            "transformers: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…) writes safetensors."
        )
    raise UserError(f"Model folder '{path}' has no weights (*.safetensors).")


def loaded(files: Sequence[Path]) -> list[Path]:
    """Return those of a folder's weights that are loaded: Mistral's folders hold all again in `consolidated.safetensors`."""
    whole = [file for file in files if file.name == "model.safetensors"]
    return whole or [file for file in files if not file.name.startswith("consolidated")] or list(files)


def tensors_of(file: Path) -> list[Tensor]:
    """Return the tensors of a safetensors file, from its header.

    Raises:
        UserError: the file is cut off or no safetensors file.
    """
    size = file.stat().st_size
    with file.open("rb") as handle:
        head = handle.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        try:
            header = json.loads(handle.read(length)) if 8 + length <= size else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            header = None
    if not isinstance(header, dict):
        raise UserError(f"'{file}' is no whole safetensors file: its header is broken. Copy or download it again.")
    tensors = [t for name, t in header.items() if name != "__metadata__"]
    end = max((t["data_offsets"][1] for t in tensors), default=0)
    if 8 + length + end > size:
        raise UserError(f"'{file}' is truncated: {size} bytes of {8 + length + end}. Copy or download it again.")
    return [Tensor(t["dtype"], prod(t["shape"]), t["data_offsets"][1] - t["data_offsets"][0]) for t in tensors]
