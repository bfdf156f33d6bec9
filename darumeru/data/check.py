"""Faults of a bundle's files: rows against their schema, files against `bundle.json`; `darumeru.task.check` asks tasks too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from darumeru.data.bundle import LOCK_NAME, FolderBundle, Row, read_entries, read_lock
from darumeru.data.schemas import RowSchema
from darumeru.errors import UserError
from darumeru.files import fingerprint


@dataclass(frozen=True)
class Fault:
    """A single thing that is wrong with a bundle."""

    file: str
    """Relative to the bundle's folder."""
    row: int | None
    """Counted from 1; None if it is no single row's fault."""
    field: str | None
    """`inputs.text`, `messages.0.role`; None if it is no single field's fault."""
    message: str

    def __str__(self) -> str:
        where = [self.file]
        if self.row is not None:
            where.append(f"row {self.row}")
        if self.field is not None:
            where.append(f"field '{self.field}'")
        return f"{', '.join(where)}: {self.message}"


def schema_faults(file: str, rows: Sequence[Row], schema: type[RowSchema] | None) -> Iterator[Fault]:
    """Yield the fields of rows that are not as the schema says, and ids that stand twice.

    Args:
        file: the file of the rows, relative to the bundle.
        rows: the rows.
        schema: of each row; None to look at ids only.
    """
    seen: dict[object, int] = {}
    for number, row in enumerate(rows, start=1):
        if schema is not None:
            try:
                schema.model_validate(row)
            except ValidationError as error:
                # A union reports each of its members, all of them about the same place.
                places = {".".join(str(p) for p in e["loc"] if not _is_type_tag(p)): e for e in error.errors()}
                for place, detail in places.items():
                    yield Fault(file, number, place or None, _in_words(detail))
        key = _id(row)
        if key is not None and seen.setdefault(key, number) != number:
            yield Fault(file, number, "meta.id" if "meta" in row else "id", f"{key} is also that of row {seen[key]}")


def _is_type_tag(part: int | str) -> bool:
    """Return whether a part of pydantic's location names a member of a union and no field."""
    return isinstance(part, str) and (part in ("str", "int", "float") or "[" in part)


def _in_words(detail: Any) -> str:
    value = detail["input"]
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"].startswith("string_") and isinstance(value, str) and not value.strip():
        return "is empty"
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}…"
    message = str(detail["msg"])
    return f"{message[0].lower()}{message[1:]}, this is {shown}"


def _id(row: Row) -> str | int | None:
    meta = row.get("meta")
    value = (meta if isinstance(meta, dict) else row).get("id")
    return value if isinstance(value, str | int) else None


def lock_faults(bundle: FolderBundle) -> Iterator[Fault]:
    """Yield what `bundle.json` says and the files do not hold; nothing where there is no `bundle.json`."""
    if not (bundle.root / LOCK_NAME).is_file():
        return
    try:
        read_lock(bundle.root / LOCK_NAME)
        entries = read_entries(bundle.root / LOCK_NAME)
    except UserError as error:
        yield Fault(LOCK_NAME, None, None, str(error))
        return
    for dataset, entry in entries.items():
        for split, source in entry["splits"].items():
            where = f"datasets.{dataset}.splits.{split}"
            try:
                rows = bundle.load("", dataset, split).rows
            except UserError as error:
                yield Fault(LOCK_NAME, None, where, str(error))
                continue
            if fingerprint(rows) != source.get("sha256"):
                yield Fault(LOCK_NAME, None, where, "the split's file no longer holds the rows that 'data pull' wrote")
