"""The files of a model's weights: which there are, which are loaded, and what tensors they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import read_json

_TRAINER_FILES = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")
"""Files that a Trainer saves beside the weights."""


SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number of a type, as safetensors calls it; of other types a whole tensor's bytes are known alone."""

_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """The place of one tensor: its file, the offset of its first byte, its type (as safetensors names it) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


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


def read_header(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors of a safetensors file by name, in the order of their bytes, and the file's metadata.

    Raises:
        UserError: the file is truncated or is no safetensors file.
    """
    broken = f"'{path}' is no whole safetensors file: its header is broken. Copy or download it again."
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise UserError(broken)
        try:
            header = json.loads(file.read(length))
            metadata = dict(header.pop("__metadata__", {}))
            entries = {name: _entry(entry) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(broken) from None
    tensors = []
    for name, (dtype, shape, start, end) in entries.items():
        expected = SIZES.get(dtype)
        if 8 + length + end > size:
            raise UserError(
                f"'{path}' is truncated: tensor {name} ends at byte {8 + length + end}, and the file has {size}. "
                "Copy or download it again."
            )
        if start > end or (expected is not None and expected * prod(shape) != end - start):
            raise UserError(broken)
        tensors.append(StoredTensor(name, dtype, shape, path, 8 + length + start, end - start))
    tensors.sort(key=lambda tensor: tensor.offset)
    return {tensor.name: tensor for tensor in tensors}, metadata


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Return type, shape, first byte and end of a tensor, as the header states them."""
    start, end = _naturals(entry["data_offsets"])
    return str(entry["dtype"]), _naturals(entry["shape"]), start, end


def _naturals(values: Any) -> tuple[int, ...]:
    """Return a list of JSON as whole numbers from 0.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise ValueError
    return tuple(values)
