"""Raw files of public data sets: their records, each with its place, so that a fault in one can be named."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.data.bundle import Row
from darumeru.errors import UserError
from darumeru.files import read_jsonl

_log = logging.getLogger(__name__)

Splits = dict[tuple[str, str], list[Row]]
"""(data set, split) → rows."""


@dataclass(frozen=True)
class ImportOptions:
    """What a user can choose about an import; `import_data` says what each is."""

    lang: str = "ru"
    rows: int = 500
    seed: int = 0
    fewshot: int = 5


@dataclass(frozen=True)
class Raw:
    """A record of a raw file, and where it stands."""

    file: Path
    line: int
    row: Row

    def fault(self, name: str, message: str) -> UserError:
        """Return the error that names this place, a field and what is wrong with it."""
        return UserError(f"'{self.file}', line {self.line}, field '{name}': {message}.")

    def value(self, name: str) -> Any:
        """Return a field that must be there; `a.b` is field b of object a.

        Raises:
            UserError: it is missing.
        """
        value: Any = self.row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                raise self.fault(name, "is missing")
        return value

    def text(self, name: str) -> str:
        """Return the stripped text of a field.

        Raises:
            UserError: it is missing, empty or no text.
        """
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(name, f"must be a text, this is {value!r}")
        return value.strip()

    def choice(self, name: str, names: dict[str, Any]) -> Any:
        """Return what a field's value stands for.

        Args:
            name: the field.
            names: value as text → its meaning.

        Raises:
            UserError: it is missing or none of `names`.
        """
        value = str(self.value(name)).strip()
        if value not in names:
            raise self.fault(name, f"must be one of {', '.join(names)}, this is '{value}'")
        return names[value]


_TABLES = {".csv": ",", ".tsv": "\t"}
LINES = (".jsonl", ".jsonl.gz")
"""The suffixes of JSON lines."""


def files_of(source: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return the files of a source with one of these suffixes, in order of their paths.

    Raises:
        UserError: there is none.
    """
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    found = [file for file in files if file.name.endswith(tuple(suffixes))]
    if not found:
        raise UserError(f"'{source}' has no file of the kind {', '.join('*' + s for s in suffixes)}.")
    return found


def stem(file: Path) -> str:
    """Return a file's name up to its first full stop."""
    return file.name.split(".")[0]


def csv_lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) for each line of a `.csv` or `.tsv` file that is not empty.

    Raises:
        UserError: it is not UTF-8 or no such table.
    """
    delimiter = _TABLES[file.suffix]
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(
                handle, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
            )
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read as a UTF-8 {file.suffix[1:].upper()} table ({error}).") from None


def records(file: Path) -> Iterator[Raw]:
    """Yield the records of JSON lines, or of a table whose first line names its columns.

    Raises:
        UserError: a line is no record; the message names it.
    """
    if file.suffix in _TABLES:
        header: list[str] | None = None
        for line, cells in csv_lines(file):
            if header is None:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                raise UserError(f"'{file}', line {line}: {len(cells)} columns, but the first line names {len(header)}.")
            else:
                yield Raw(file, line, dict(zip(header, cells, strict=True)))
        return
    for line, row in read_jsonl(file):
        if not isinstance(row, dict):
            raise UserError(f"'{file}', line {line}: a record must be a JSON object, this is a {type(row).__name__}.")
        yield Raw(file, line, row)


def log_skipped(source: Path, reasons: Iterable[str]) -> None:
    """Warn how many items were left out, and why."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    for reason, count in counts.items():
        _log.warning("%s: %d item%s left out: %s.", source, count, "s"[: count != 1], reason)


def warn_missing(source: Path, splits: Splits, dataset: str, needed: Sequence[str]) -> None:
    """Warn of each split of a data set that the source had nothing for."""
    for split in needed:
        if (dataset, split) not in splits:
            _log.warning(
                "%s: nothing for split '%s'; data set '%s' is not complete without it.", source, split, dataset
            )


def squeezed(text: str) -> str:
    """Return a text as it is compared: without case, every run of spaces as one."""
    return " ".join(text.split()).casefold()
