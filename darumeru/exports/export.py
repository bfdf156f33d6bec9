"""A run → files of another format, all of them or none."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from darumeru import plugins
from darumeru.errors import UserError
from darumeru.exports.format import Export, Format
from darumeru.files import check_output
from darumeru.record.run import load_run

_PACKAGE, _GROUP = "darumeru.exports.formats", "darumeru.formats"


def format_names() -> list[str]:
    """Return the names of all formats."""
    return plugins.names(_PACKAGE, _GROUP)


def find_format(name: str) -> Format:
    """Return a format by its name.

    Raises:
        UserError: there is no such format.
    """
    return plugins.find(_PACKAGE, _GROUP, name, Format, what="format")


def as_text(run: Path, format_: str, *, name: str | None = None, include_path: Sequence[Path] = ()) -> str:
    """Return a run in a format of one text.

    Args:
        run: folder of the record.
        format_: one of `format_names()`.
        name: of the model there; the record's by default.
        include_path: folders of the run's further tasks.

    Raises:
        UserError: no such run or format, or one that has several files.
    """
    found = find_format(format_)
    if not found.text:
        raise UserError(f"Format '{format_}' has files of its own: name a folder for them with --output.")
    with tempfile.TemporaryDirectory() as stage:
        found.write(_opened(run, name, include_path), Path(stage))
        (file,) = _files(Path(stage))
        return file.read_text(encoding="utf-8")


def export(
    run: Path, format_: str, output: Path, *, name: str | None = None, include_path: Sequence[Path] = ()
) -> list[Path]:
    """Write a run's files in a format into a folder; files of an earlier export are replaced.

    Args:
        run: see `as_text`.
        format_: see `as_text`.
        output: the folder; other files in it stay.
        name: see `as_text`.
        include_path: see `as_text`.

    Returns:
        The files.

    Raises:
        UserError: no such run or format; `output` is a file; a package of an extra is missing.
        DarumeruError: a file of the record was changed since it was finished.
    """
    found = find_format(format_)
    opened = _opened(run, name, include_path)
    check_output(output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".export.") as stage:
        found.write(opened, Path(stage))
        files = [file.relative_to(stage) for file in _files(Path(stage))]
        for file in files:
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(stage) / file).replace(output / file)
    return [output / file for file in files]


def _opened(run: Path, name: str | None, include_path: Sequence[Path]) -> Export:
    loaded = load_run(run)
    return Export(loaded, name or loaded.header.model.name, tuple(include_path))


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())
