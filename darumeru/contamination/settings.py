"""What a search for contamination is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from darumeru.options import Option, Strict
from darumeru.settings import Data, IncludePath, Lock, Suite, Tasks

WORDS = 13
"""Words in a row that two texts must share to overlap (Brown et al. 2020)."""


class ContaminationSettings(Strict):
    """Which texts are searched, for which documents, and by what they are found."""

    corpus: Annotated[
        tuple[str, ...], Option("Texts: .txt, .jsonl, .parquet (.gz, .zst), or hub:owner/name.", many="spread")
    ] = Field(min_length=1)
    suite: Suite = "darumeru"
    tasks: Tasks = ()
    data: Data = "hub"
    lock: Lock = None
    include_path: IncludePath = ()
    words: Annotated[int, Option("So many words in a row in common are an overlap.")] = Field(WORDS, ge=4, le=100)
    min_share: Annotated[
        float, Option("Only documents of whose runs of words the corpus has at least this share, 0 to 1.")
    ] = Field(0.0, ge=0, le=1)
    field: Annotated[str, Option("Text field of JSON lines, Parquet and data sets.")] = "text"
    run: Annotated[
        tuple[Path, ...],
        Option("Finished runs whose scores to give without these documents too.", many="spread"),
    ] = ()
