"""Folders that appear whole or not at all, and fingerprints of inputs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path

from darumeru.errors import FULL, DarumeruError, UserError
from darumeru.files import file_sha256, is_empty, staged

_BLOCK = 4096
_SAMPLES = 64


@contextmanager
def new_folder(output: Path, *, inputs: Iterable[Path] = (), force: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `output` that becomes `output` when the block ends without an exception.

    Nothing is left behind when the block fails. `inputs` are folders that must not be written over.

    Raises:
        UserError: `output` holds something already (and not `force`), or is one of the inputs.
        DarumeruError: the disk is full.
    """
    output = output.absolute()
    for folder in inputs:
        if folder.exists() and output.exists() and output.samefile(folder):
            raise UserError(f"The output folder {output} is also an input; inputs are never changed. Name another one.")
        if folder.absolute() in output.parents:
            raise UserError(f"The output folder {output} lies inside the input {folder}. Name one outside it.")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file, and the output is a folder. Name another one.")
    if output.is_dir() and not is_empty(output) and not force:
        raise UserError(f"The output folder {output} is not empty. Name a new one, or add --force to replace it.")
    try:
        with ExitStack() as stack:
            try:
                temporary = stack.enter_context(staged(output))
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise UserError(
                    f"Cannot write beside {output}: {error.strerror}. Name a folder you may write to."
                ) from error
            yield temporary
    except OSError as error:
        if error.errno in FULL:
            raise DarumeruError(
                f"No space left on the disk of {output}; nothing was written. Free some and repeat."
            ) from error
        raise


def need_space(folder: Path, wanted: int) -> None:
    """Refuse before writing when the disk of `folder` has fewer than `wanted` bytes free.

    Raises:
        DarumeruError: with both figures.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise DarumeruError(
            f"The output needs {wanted / 1e9:.2f} GB and the disk of {folder.parent} has {free / 1e9:.2f} GB free. "
            "Free some space, name another disk, or use --link to share unchanged files."
        )


def folder_fingerprint(folder: Path) -> str:
    """Return the SHA-256 over a folder's JSON, Jinja, text and safetensors files, by name; every byte counts.

    Samples of the weights would not do: two initialisations of a few tokens differ in a few rows of a large shard. 16 GB
    take about ten seconds where the processor has SHA instructions; a file that did not change is read once a process.
    """
    digest = hashlib.sha256()
    suffixes = {".json", ".jinja", ".safetensors", ".model", ".txt"}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in suffixes and p.name != "lep.json"):
        state = path.stat()
        digest.update(f"{path.name}\0{_file_sha256(path.resolve(), state.st_size, state.st_mtime_ns)}\0".encode())
    return "sha256:" + digest.hexdigest()


@lru_cache
def _file_sha256(path: Path, size: int, changed: int) -> str:
    """`size` and `changed` (time of the last change, ns) say which state of the file is meant."""
    return file_sha256(path)


def tree_fingerprint(folder: Path) -> str:
    """Return a SHA-256 over all files of a folder and of those in it, by name, for folders that are no models: tasks, data.

    Files count as in `files_fingerprint`; hidden ones and what Python compiled beside its sources do not.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            digest.update(f"{name.as_posix()}\0".encode())
            _add(digest, path)
    return "sha256-sampled:" + digest.hexdigest()


def files_fingerprint(files: Iterable[Path]) -> str:
    """Return a SHA-256 over texts, in their order, which tells corpora apart and does not authenticate them.

    Small files count whole. Of a file over 32 MiB its size, its first 256 KiB and 64 evenly spaced blocks of 4 KiB count.
    """
    digest = hashlib.sha256()
    for path in files:
        _add(digest, path)
    return "sha256-sampled:" + digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path) -> None:
    size = path.stat().st_size
    digest.update(f"{path.name}\0{size}\0".encode())
    with path.open("rb") as file:
        if size <= 32 << 20:
            digest.update(file.read())
            return
        digest.update(file.read(256 << 10))
        for index in range(_SAMPLES):
            file.seek((size - _BLOCK) * index // (_SAMPLES - 1))
            digest.update(file.read(_BLOCK))
