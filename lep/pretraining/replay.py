"""Texts that are mixed into a training so that what the model knew is not lost: replay, a share of the rows of every step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.errors import UserError
from lep.pretraining.blocks import TrainingRows

_GOLDEN = 0.6180339887498949
"""Its multiples modulo 1 are spread evenly, so that over the steps a share is met that no step can meet exactly."""


@dataclass(frozen=True)
class Replay:
    """A text (as `darumeru.data.texts.read_texts` takes it) and its share of the rows of each step."""

    source: str
    share: float

    @property
    def name(self) -> str:
        """The file without its folders, and the share, as a manifest tells it."""
        return f"{self.source if self.source.startswith('hub:') else Path(self.source).name}={self.share:g}"


def parse_replay(values: Sequence[str]) -> list[Replay]:
    """`en.jsonl=0.25` as a text and its share.

    Raises:
        UserError: one without a share, or shares that leave nothing of the corpus.
    """
    found = []
    for value in values:
        source, equals, share = value.rpartition("=")
        if not equals or not source or not re.fullmatch(r"0?\.\d+", share) or not float(share):
            raise UserError(
                f"--replay {value!r}: write FILE=SHARE, the share of each step's rows between 0 and 1, such as en.jsonl.gz=0.25."
            )
        found.append(Replay(source, float(share)))
    if sum(part.share for part in found) > 0.95:
        raise UserError(f"--replay {' '.join(values)}: together they may be at most 0.95; the rest is the corpus.")
    return found


class MixedRows:
    """The rows that a training with replay reads, in order; item i is a function of the seed, the shares and i alone.

    Of the B rows of a step, each text has ⌊s B⌋ or ⌈s B⌉ (exactly s B where that is whole), and s on average over the
    steps. Each text is walked on its own, anew shuffled in each pass.

    Args:
        replay: rows of each text with their share of each step.
        corpus: rows of the corpus, which have the rest.
        batch: rows of a step.
        length: rows of the whole training.
    """

    def __init__(
        self, replay: Sequence[tuple[TrainingRows, float]], corpus: TrainingRows, *, batch: int, length: int
    ) -> None:
        self.parts = [*(rows for rows, _ in replay), corpus]
        self.batch = batch
        bounds = np.cumsum([share for _, share in replay])
        numbers = np.arange(length)
        offset = ((numbers // batch + 1) * _GOLDEN) % 1
        self._part = np.searchsorted(bounds, (numbers % batch + offset) / batch, side="right").astype(np.int8)
        self._place = np.zeros(length, dtype=np.int64)
        for part in range(len(self.parts)):
            mine = self._part == part
            self._place[mine] = np.arange(int(mine.sum()))
        self._first = np.cumsum([0, *(len(rows) for rows in self.parts)]).tolist()

    @property
    def distinct(self) -> int:
        """Rows that are read again and again."""
        return int(self._first[-1])

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part = int(self._part[index])
        item = self.parts[part][int(self._place[index])]
        return {**item, "row": item["row"] + self._first[part]}

    def passes(self, steps: int) -> list[float]:
        """How often each text, the corpus last, was read in the first steps."""
        read = np.bincount(self._part[: steps * self.batch], minlength=len(self.parts))
        return [int(count) / len(rows) for count, rows in zip(read, self.parts, strict=True)]
