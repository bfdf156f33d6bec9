"""RuCoLA, the corpus of linguistic acceptability: CSV or JSON lines, one file a part."""

from __future__ import annotations

from pathlib import Path

from darumeru.data.raw import LINES, ImportOptions, Splits, files_of, records, stem, warn_missing
from darumeru.errors import UserError

_RUCOLA_SPLITS = {
    "train": "train",
    "in_domain_train": "train",
    "in_domain_dev": "validation",
    "out_of_domain_dev": "validation",
    "validation": "validation",
}


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `rucola`: `validation` of the dev parts, `train` of the train part; the test part has no labels."""
    files = [file for file in files_of(source, (*LINES, ".csv")) if stem(file) in _RUCOLA_SPLITS]
    if not files:
        names = ", ".join(_RUCOLA_SPLITS)
        raise UserError(f"'{source}' has no file of RuCoLA with labels; their names begin with: {names}.")
    seen: dict[str, Path] = {}
    splits: Splits = {}
    for file in files:
        if (other := seen.setdefault(stem(file), file)) != file:
            raise UserError(f"'{other}' and '{file}' are the same part of RuCoLA; give only one of them.")
        rows = splits.setdefault(("rucola", _RUCOLA_SPLITS[stem(file)]), [])
        for raw in records(file):
            rows.append(
                {
                    "id": len(rows),
                    "sentence": raw.text("sentence"),
                    "label": raw.choice("acceptable", {"0": 0, "1": 1}),
                    "error_type": str(raw.row.get("error_type", "0")),
                    "detailed_source": str(raw.row.get("detailed_source", "")),
                    "part": stem(file),
                }
            )
    warn_missing(source, splits, "rucola", ("validation", "train"))
    return splits
