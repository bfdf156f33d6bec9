"""What is in a folder, file by file, without what differs between two undisturbed runs: times, speeds, memory."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

_TIMES = {
    "started", "finished", "created", "at", "seconds", "wall_seconds", "engine_seconds", "not_engine_share", "time",
    "tokens_per_second", "memory_gb", "peak_memory_gb", "where", "environment", "versions", "total_flos", "machine", "tps", "crc",
    "date_published",
}  # fmt: skip
"""Keys whose values are of one process and not of the result."""

_OF_A_PROCESS = frozenset({".lock", "training_args.bin"})
"""Files that are of a process: their being there counts, not what is in them."""

_SUMS = {"manifest.json", ".sums.json"}

_JSON, _TORCH = {".json", ".jsonl"}, {".pt", ".pth"}


def content_of(folder: Path) -> dict[str, Any]:
    """Return path below the folder → the JSON values without times, the target of a link to a folder, or the SHA-256."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and not path.is_file():
            found[name] = f"→ {path.readlink()}"
        elif path.is_dir():
            found[name] = "a folder"
        elif path.name in _OF_A_PROCESS:
            found[name] = "a file"
        elif path.suffix in _JSON:
            try:
                found[name] = _values(path)
            except ValueError as error:
                found[name] = f"no JSON: {error}"
        elif path.suffix in _TORCH:
            found[name] = _members(path)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _values(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    rows = text.splitlines() if path.suffix == ".jsonl" else [text]
    values = [timeless(json.loads(row)) for row in rows]
    if path.name in _SUMS:  # of files with times in them; those of a record are checked by themselves
        return [sorted(value.get("files", value)) for value in values]
    return values


def _members(path: Path) -> dict[str, str]:
    """Return the SHA-256 of each part of a PyTorch file, whose archive is named after the file where the path is ASCII."""
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist() if "serialization_id" not in name}
        return {part: hashlib.sha256(archive.read(name)).hexdigest() for part, name in names.items()}


def timeless(value: Any) -> Any:
    """Return a JSON value without times, however deep."""
    return _without(value, _TIMES)


def uncounted(value: Any) -> Any:
    """Return a JSON value without how often something was made, however deep: what was damaged is made again."""
    return _without(value, {"times"})


def _without(value: Any, keys: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return in words how two contents differ, file by file."""
    told = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    told += [f"{name} was left behind" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            told.append(f"{name} differs{_where(found[name], wanted[name])}")
    return told


def _where(found: Any, wanted: Any, path: str = "") -> str:
    """Return at which place two JSON values differ first."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in sorted(found.keys() | wanted.keys()):
            if found.get(key) != wanted.get(key):
                return _where(found.get(key), wanted.get(key), f"{path}.{key}")
    if isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            if one != other:
                return _where(one, other, f"{path}[{number}]")
    return f" at {path or 'its bytes'}: {str(found)[:80]} for {str(wanted)[:80]}"
