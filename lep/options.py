"""Parameters that several stages have: their types, names on the command line and help, said once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from darumeru.options import Option

Model = Annotated[str | Path, Option("Model folder or hub id (owner/name). Never changed.")]
Corpus = Annotated[
    Sequence[str | Path], Option("Texts: .txt, .jsonl, .parquet (.gz, .zst), or hub:owner/name.", many="spread")
]
Output = Annotated[str | Path, Option("Folder to write; it appears whole or not at all.")]
CorpusFile = Annotated[
    Path, Option("File to write: .jsonl or .txt (also .gz, .zst), .parquet. Its report, FILE.report.json, ends it.")
]
Lang = Annotated[str, Option("Language of the new tokens, for its scripts.")]
Scripts = Annotated[
    Sequence[str] | None, Option("Unicode scripts instead of those of --lang; 'any' for all.", many="spread")
]
Texts = Annotated[Sequence[str | Path], Option("Further texts to try the invariants on.", flag="--text", many="spread")]
Field = Annotated[str, Option("Text field of JSON lines, Parquet and data sets.")]
MinCount = Annotated[int, Option("Rarer pairs are not merged.")]
KeepLanguages = Annotated[
    Sequence[str | Path],
    Option("Texts whose segmentation must not change (source languages, code).", many="spread"),
]
Force = Annotated[bool, Option("Replace an output that exists.", flag="--force")]
Link = Annotated[bool, Option("Hard-link unchanged weight files instead of copying them.", flag="--link")]
