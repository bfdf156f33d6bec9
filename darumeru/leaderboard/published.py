"""The results that the paper published: reference rows without intervals and samples."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from darumeru.errors import UserError
from darumeru.leaderboard.entry import Bounded, Entry

# In a wheel the published results lie beside this module, in a checkout under leaderboards/.
_INSIDE = Path(__file__).parent / "published.csv"
PUBLISHED = _INSIDE if _INSIDE.is_file() else Path(__file__).parents[2] / "leaderboards" / "published.csv"

OLDER_LCS = "DaruCopy probably by the older lcs"
"""Until 2026-06 the reference framework divided the common subsequence by the answer's length, not the source's: a copy that was
cut short scored 1."""

PUBLISHED_SUITE = "darumeru"
"""The suite that they are of: means over other tasks cannot be held against them."""

GROUPS = ("darummlu", "darumera", "darusum", "darucopy_en", "darucopy_ru")


def read_published(file: Path = PUBLISHED) -> list[Entry]:
    """Return the published results: reference rows without intervals and samples.

    Raises:
        UserError: the file is missing or a row is not as it must be.
    """
    entries = []
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                try:
                    entries.append(_published(row, number))
                except (KeyError, ValueError, TypeError) as error:
                    raise UserError(f"'{file}', line {number}: {type(error).__name__}: {error}.") from None
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}).") from None
    return entries


def _published(row: Mapping[str, str], number: int) -> Entry:
    few = row["setting"] == "few-shot"
    scores: dict[str, Bounded] = {"suite": Bounded(float(row["micro_avg"]))}
    scores |= {group: Bounded(float(row[group])) for group in GROUPS}
    symbols = float(row["symbols_per_token"]) if row["symbols_per_token"] else None
    return Entry(
        id=f"paper-{row['table']}-{number}",
        name=row["model"],
        published=True,
        mode="foundation" if few else "instruct",
        num_fewshot=5 if few else 0,
        scores=scores,
        base=row["base"] or None,
        vocab=row["vocab"] or None,
        method=row["method"] or None,
        note=f"table {row['table']}; {OLDER_LCS}",
        symbols_per_token=(symbols, None),
    )
