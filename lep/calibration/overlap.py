"""Texts that share a run of words with other texts, found exactly and without keeping the others in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS = 13
"""Words in a row that two texts must share to overlap."""

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def overlapping(candidates: Sequence[str], others: Iterable[str], words: int = WORDS) -> set[int]:
    """The candidates that have `words` words in a row in common with any of the other texts.

    Words are runs of letters and digits, lower case, so that layout and punctuation do not hide an overlap. The candidates'
    runs are kept as sorted 64-bit hashes (a false alarm: about 1 in 10^19 for each pair of runs), the others are streamed.

    Args:
        candidates: texts.
        others: texts; each is looked at once.
        words: the length of a run.
    """
    hashes = [_runs(text, words) for text in candidates]
    index = np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)
    owner = np.repeat(np.arange(len(hashes)), [len(h) for h in hashes])
    order = np.argsort(index, kind="stable")
    index, owner = index[order], owner[order]
    hit = np.zeros(len(candidates), dtype=np.bool_)
    for text in others:
        runs = np.unique(_runs(text, words))
        starts, ends = np.searchsorted(index, runs, "left"), np.searchsorted(index, runs, "right")
        for start, end in zip(starts[ends > starts], ends[ends > starts], strict=True):
            hit[owner[start:end]] = True
    return set(np.flatnonzero(hit).tolist())


def _runs(text: str, words: int) -> NDArray[np.uint64]:
    """A hash of each run of `words` words: Σ hash(word k) · factor^k, modulo 2^64."""
    values = np.array([_hash(word) for word in _WORD.findall(text.lower())], dtype=np.uint64)
    count = len(values) - words + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    total = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(words):
            total = total * _FACTOR + values[offset : offset + count]
    return total


@lru_cache(maxsize=1 << 20)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
