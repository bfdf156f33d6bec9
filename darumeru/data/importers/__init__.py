"""Public raw files → data sets of a bundle, in the schemas that the tasks read.

Each module here is a kind of data, found by its file name. It has one public function, `read(source, options)`, from the
files of a source to splits of rows (`Splits`); a new kind is one new file. The instructions are this project's own.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from darumeru.data.bundle import Row, read_rows
from darumeru.data.raw import ImportOptions, Splits
from darumeru.errors import UserError, unknown
from darumeru.files import check_output, fingerprint, write_jsonl


class Importer(Protocol):
    """The module of a kind."""

    def read(self, source: Path, options: ImportOptions) -> Splits:
        """Return the rows that the files of a source hold.

        Raises:
            UserError: the source is not of this kind.
        """
        ...


def kinds() -> list[str]:
    """Return the names of the kinds: one for each module of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def import_data(
    kind: str, source: Path, output: Path, *, lang: str = "ru", rows: int = 500, seed: int = 0, fewshot: int = 5
) -> list[Path]:
    """Write the data set that raw files hold into a bundle folder.

    Items that the bundle's schema cannot express are left out; how many is logged as a warning.

    Args:
        kind: one of `kinds()`.
        source: a file, or a folder whose files are searched.
        output: the bundle's folder; it may hold other data sets.
        lang: `copy`: the language of the texts, a code of two or three letters.
        rows: `copy`: how many rows of each of its two data sets.
        seed: `copy`: of the choice of texts.
        fewshot: rows that become few-shot examples where the source has none of its own.

    Returns:
        The files of the splits.

    Raises:
        UserError: an unknown kind, a source that is not of that kind, or a split that is there with other rows.
    """
    if kind not in kinds():
        raise unknown("kind of data", kind, kinds())
    if not source.exists():
        raise UserError(f"Source '{source}' does not exist.")
    check_output(output)
    if not re.fullmatch(r"[a-z]{2,3}", lang):
        raise UserError(f"Language '{lang}' is no code of two or three small letters (ru, en, kk).")
    if rows < 1 or fewshot < 0:
        raise UserError(
            f"{rows} rows with {fewshot} examples cannot be made: at least 1 row and 0 examples are needed."
        )
    importer = cast("Importer", import_module(f"{__name__}.{kind}"))
    splits = importer.read(source, ImportOptions(lang, rows, seed, fewshot))
    targets = [(_target(output, dataset, split, found), found) for (dataset, split), found in splits.items()]
    for file, found in targets:
        if not file.exists():
            write_jsonl(file, found)
    return [file for file, _ in targets]


def _target(output: Path, dataset: str, split: str, rows: Sequence[Row]) -> Path:
    """Return where a split goes.

    Raises:
        UserError: it is there already, with other rows.
    """
    folder = output / dataset
    for suffix in (".jsonl", ".jsonl.gz", ".parquet"):
        file = folder / f"{split}{suffix}"
        if file.exists() and fingerprint(read_rows(file)) != fingerprint(rows):
            raise UserError(f"'{file}' is there already and holds other rows. Remove it, or choose another --output.")
        if file.exists():
            return file
    return folder / f"{split}.jsonl"
