"""MMLU in English: its own tables without a header, or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from darumeru.data.bundle import Row
from darumeru.data.raw import LINES, ImportOptions, Raw, Splits, csv_lines, files_of, records, stem, warn_missing
from darumeru.errors import UserError

_ANSWERS = {"A": 0, "B": 1, "C": 2, "D": 3}
_MMLU_CSV = re.compile(r"(?P<subject>.+)_(?P<split>test|dev)\.csv")


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `mmlu_nlpcoreteam`, English only: there are no Russian fields, so that `mmlu_ru` cannot run on it."""
    splits: Splits = {}
    for file in files_of(source, (*LINES, ".csv")):
        if match := _MMLU_CSV.fullmatch(file.name):
            splits.setdefault(("mmlu_nlpcoreteam", match["split"]), []).extend(
                _mmlu_row(raw, match["subject"]) for raw in _mmlu_table(file)
            )
        elif file.suffix != ".csv" and stem(file) in ("test", "dev"):
            splits.setdefault(("mmlu_nlpcoreteam", stem(file)), []).extend(
                _mmlu_row(raw, raw.text("subject")) for raw in records(file)
            )
    if not splits:
        raise UserError(
            f"'{source}' has no file of MMLU: <subject>_test.csv, <subject>_dev.csv, test.jsonl or dev.jsonl."
        )
    warn_missing(source, splits, "mmlu_nlpcoreteam", ("test", "dev"))
    return splits


def _mmlu_table(file: Path) -> Iterator[Raw]:
    """Yield the rows of MMLU's own tables, which have no header: question, four options, letter."""
    columns = ("question", "A", "B", "C", "D", "answer")
    for line, cells in csv_lines(file):
        if len(cells) != len(columns):
            raise UserError(
                f"'{file}', line {line}: {len(cells)} columns, MMLU has {len(columns)}: {', '.join(columns)}."
            )
        yield Raw(file, line, dict(zip(columns, cells, strict=True)))


def _mmlu_row(raw: Raw, subject: str) -> Row:
    return {
        "subject": subject.strip().replace(" ", "_"),
        "question_en": raw.text("question"),
        "choices_en": [str(raw.value(letter)).strip() for letter in _ANSWERS],
        "answer": raw.choice("answer", {**_ANSWERS, **{str(i): i for i in _ANSWERS.values()}}),
    }
