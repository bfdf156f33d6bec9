"""Continued byte-pair encoding: new merges learned on top of the old ones.

Words come already segmented by the old merges; from there the usual counting of neighbouring pairs continues (Sennrich et
al., arXiv 1508.07909; Purason et al., arXiv 2512.03989, for the idea of continuing). Every learned token can then be
produced, because the segmentation it was counted in is the one the tokenizer makes.

`tokenizers` trains only from single characters. One package continues (bpe-continue), but cannot hold back merges that
would change other languages and treats a SentencePiece text as one word; hence this module. All words lie in one array,
and a merge touches all its places at once, so that numpy does the work.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHIFT = 32
_LOW = (1 << _SHIFT) - 1


@dataclass(frozen=True)
class Merge:
    """Two ids, the id they become, and how often the pair was counted when it was learned."""

    left: int
    right: int
    result: int
    count: int


def learn_merges(
    words: Sequence[Sequence[int]] | tuple[NDArray[np.int32], NDArray[np.int64]],
    counts: Sequence[int] | NDArray[np.int64],
    *,
    new_tokens: int,
    name: Callable[[int, int], int | None],
    is_new: Callable[[int], bool],
    min_count: int = 2,
    known: Mapping[tuple[int, int], int] | None = None,
) -> list[Merge]:
    """Learn merges until `new_tokens` new tokens exist or no pair is frequent enough.

    The most frequent pair is merged first, of equals the one with the smaller ids. A pair that was merged before and
    turns up again (as a token can be reached by two ways) is joined at once, as the tokenizer would.

    Args:
        words: segmented words as lists of ids, or as one flat array and the words' lengths.
        counts: how often each word occurs.
        new_tokens: how many new tokens are wanted.
        name: the id of the token that a pair becomes (the same for the same text), or None where the pair must not be
            merged. Asked once for a pair.
        is_new: whether an id counts as a new token.
        min_count: pairs that are rarer are not merged.
        known: the old merges in their order, pair → result. Words come segmented by them, so that such a pair turns up
            only when a new merge makes an old token that nothing could make before.

    Returns:
        The merges in order; more than `new_tokens` where two of them make the same token.
    """
    learner = _Learner(words, np.asarray(counts, dtype=np.int64))
    merges: list[Merge] = []
    results = {(left << _SHIFT) | right: result for (left, right), result in (known or {}).items()}
    ranks = {key: rank for rank, key in enumerate(results)}
    banned: set[int] = set()
    made: set[int] = set()
    heap = [(-count, key) for key, count in learner.counts.items() if count >= min_count]
    heapq.heapify(heap)
    while heap and len(made) < new_tokens:
        negative, key = heapq.heappop(heap)
        count = learner.counts.get(key, 0)
        if key in banned or key in results or count < min_count:
            continue
        if count != -negative:
            # The entry is stale. A larger count has an entry of its own.
            if count < -negative:
                heapq.heappush(heap, (-count, key))
            continue
        result = name(key >> _SHIFT, key & _LOW)
        if result is None:
            banned.add(key)
            continue
        merges.append(Merge(key >> _SHIFT, key & _LOW, result, count))
        results[key] = result
        ranks[key] = len(ranks)
        if is_new(result):
            made.add(result)
        again = [key]
        while again:
            current = min(again, key=ranks.__getitem__)
            again.remove(current)
            for grown in learner.merge(current, results[current]):
                if grown in results:
                    if grown not in again:
                        again.append(grown)
                elif learner.counts[grown] >= min_count:
                    heapq.heappush(heap, (-learner.counts[grown], grown))
    return merges


class _Learner:
    """The words, as linked lists in arrays, with the places and counts of all pairs."""

    def __init__(
        self, words: Sequence[Sequence[int]] | tuple[NDArray[np.int32], NDArray[np.int64]], counts: NDArray[np.int64]
    ) -> None:
        if isinstance(words, tuple) and len(words) == 2 and isinstance(words[0], np.ndarray):
            symbols, lengths = words
        else:
            lengths = np.array([len(word) for word in words], dtype=np.int64)
            symbols = np.fromiter((symbol for word in words for symbol in word), dtype=np.int32)
        total = len(symbols)
        # 32 bits each: a gigabyte of text has tens of millions of places.
        self.symbols = np.array(symbols, dtype=np.int32)
        self.weights = np.repeat(counts, np.asarray(lengths))
        self.next = np.arange(1, total + 1, dtype=np.int32)
        self.previous = np.arange(-1, total - 1, dtype=np.int32)
        ends = np.cumsum(lengths)
        ends = ends[np.asarray(lengths) > 0]
        self.next[ends - 1] = -1
        self.previous[ends[:-1]] = -1
        self.counts: dict[int, int] = {}
        self.places: dict[int, list[NDArray[np.int32]]] = {}
        self._add(np.flatnonzero(self.next >= 0).astype(np.int32))

    def _keys(self, starts: NDArray[np.int32]) -> NDArray[np.int64]:
        keys: NDArray[np.int64] = self.symbols[starts].astype(np.int64) << _SHIFT
        keys |= self.symbols[self.next[starts]]
        return keys

    def _add(self, starts: NDArray[np.int32]) -> list[int]:
        """Count the pairs that begin at these places (in rising order); returns their keys."""
        if not len(starts):
            return []
        keys = self._keys(starts)
        order = np.argsort(keys, kind="stable")
        keys, starts = keys[order], starts[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        sums = np.add.reduceat(self.weights[starts], first)
        found: list[int] = keys[first].tolist()
        bounds = [*first.tolist(), len(keys)]
        for index, (key, total) in enumerate(zip(found, sums.tolist(), strict=True)):
            self.counts[key] = self.counts.get(key, 0) + total
            self.places.setdefault(key, []).append(starts[bounds[index] : bounds[index + 1]])
        return found

    def _remove(self, starts: NDArray[np.int32]) -> None:
        keys, back = np.unique(self._keys(starts), return_inverse=True)
        sums = np.zeros(len(keys), dtype=np.int64)
        np.add.at(sums, back, self.weights[starts])
        for key, total in zip(keys.tolist(), sums.tolist(), strict=True):
            self.counts[key] -= total

    def merge(self, key: int, result: int) -> list[int]:
        """Join the pair everywhere; returns the keys of the pairs that arose."""
        left, right = key >> _SHIFT, key & _LOW
        lists = self.places.pop(key, [])
        if not lists:
            return []
        places = np.unique(np.concatenate(lists)) if len(lists) > 1 else lists[0]
        seconds = self.next[places]
        whole = (self.symbols[places] == left) & (seconds >= 0)
        whole &= self.symbols[seconds] == right
        places = places[whole]
        if left == right and len(places):
            places = self._without_overlaps(places)
        if not len(places):
            return []
        seconds = self.next[places]
        before = self.previous[places]
        touched = np.unique(np.concatenate([before[before >= 0], places, seconds]))
        self._remove(touched[self.next[touched] >= 0])
        after = self.next[seconds]
        self.symbols[places] = result
        self.symbols[seconds] = -1
        self.next[places] = after
        self.previous[after[after >= 0]] = places[after >= 0]
        self.next[seconds] = -1
        before = self.previous[places]
        arisen = np.unique(np.concatenate([before[before >= 0], places]))
        found = self._add(arisen[self.next[arisen] >= 0])
        if self.counts.get(key) == 0:
            del self.counts[key]
        return found

    def _without_overlaps(self, places: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return, of the places of a pair of equals ("aaa"), every second one in a run, from the left."""
        joined = np.zeros(len(places), dtype=bool)
        joined[1:] = self.next[places[:-1]] == places[1:]
        run_starts = np.flatnonzero(~joined)
        position = np.arange(len(places)) - np.repeat(run_starts, np.diff(np.append(run_starts, len(places))))
        even: NDArray[np.int32] = places[position % 2 == 0]
        return even
