"""What every record is: a folder that one process at a time works on, and that a manifest, written last, declares whole.

The record of a run, of an arena and of calibration data share these functions.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from darumeru.errors import BusyError, DarumeruError
from darumeru.files import file_sha256, read_json, write_json
from darumeru.record.header import FORMAT
from darumeru.record.model import Part, parse

MANIFEST = "manifest.json"


class Manifest(Part):
    """The files of a finished record."""

    format: int
    complete: bool
    files: dict[str, str]
    """Path under the folder → SHA-256 of the file."""


def is_sealed(folder: Path) -> bool:
    """Return whether the record was finished."""
    return (folder / MANIFEST).is_file()


def seal(folder: Path, names: Iterable[str]) -> None:
    """Write the manifest: nothing is missing, and these are the files. The journal, whose answers they hold, is deleted."""
    sums = {name: file_sha256(folder / name) for name in names}
    write_json(folder / MANIFEST, Manifest(format=FORMAT, complete=True, files=sums).to_json())
    tidy(folder)


def tidy(folder: Path) -> None:
    """Delete the journal of a finished record, also where a process was killed after it had written the manifest."""
    (folder / "journal.jsonl").unlink(missing_ok=True)


def unseal(folder: Path) -> None:
    """Delete the manifest, before files are changed."""
    (folder / MANIFEST).unlink(missing_ok=True)


def unchanged(file: Path, sha256: str | None) -> bool:
    """Return whether a file is there and has this SHA-256."""
    return file.is_file() and file_sha256(file) == sha256


def verify(folder: Path, kind: str, remedy: str) -> None:
    """Compare the files of a finished record with its manifest.

    Args:
        folder: of the record.
        kind: of record, for the message.
        remedy: what to do about a changed file, a sentence.

    Raises:
        UserError: there is no manifest, or it is not one.
        DarumeruError: a file was changed or lost since the record was finished.
    """
    manifest = parse(Manifest, read_json(folder / MANIFEST), f"'{folder / MANIFEST}'")
    for name, want in manifest.files.items():
        if not unchanged(folder / name, want):
            raise DarumeruError(f"'{folder / name}' is not what the finished {kind} wrote. {remedy}")


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder, so that no second process computes the same.

    Raises:
        BusyError: another process holds it.
    """
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"Another process is computing run '{folder}'. Wait for it, or stop it.") from None
        yield
    finally:
        os.close(handle)
