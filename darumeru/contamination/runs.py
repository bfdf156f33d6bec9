"""Runs of words that texts have in common, found exactly: texts are read as their words, whatever their layout.

Words are runs of letters and digits. Case, accents and stress marks, soft hyphens and other invisible characters do not count,
nor does the difference between ё and е or й and и, so that composed, decomposed and plainly typed texts are alike.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from darumeru.contamination.settings import WORDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U16 = NDArray[np.uint16]
    U64 = NDArray[np.uint64]
    Ints = NDArray[np.int64]

BATCH = 1 << 18
"""Characters that are looked at in one step."""

_FACTOR = 0x9E3779B97F4A7C15
_INVERSE = pow(_FACTOR, -1, 1 << 64)
_IGNORED = 1
"""Stands in the table of characters for those that do not part words."""

T = TypeVar("T")


class Words:
    """The words of some texts, all in one array.

    Args:
        texts: what to read.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        parts = [(text + "\n").encode("utf-16-le", "surrogatepass") for text in texts]
        letters = _letters()[np.frombuffer(b"".join(parts), dtype="<u2")]
        ends = np.cumsum([len(part) // 2 for part in parts], dtype=np.int64)
        kept = letters != _IGNORED
        if not kept.all():
            ends = np.concatenate([[0], np.cumsum(kept)])[ends]
            letters = letters[kept]
        self.letters: U16 = letters
        """Of all texts; 0 where no word is."""
        inside = np.zeros(len(letters) + 2, dtype=np.bool_)
        np.not_equal(letters, 0, out=inside[1:-1])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        self.starts: Ints = edges[::2]
        """(W,) where each word begins."""
        self.ends: Ints = edges[1::2]
        self.text: Ints = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(self.starts, ends), prepend=0))
        """(W,) number of each word's text."""

    def runs(self, length: int) -> tuple[U64, Ints]:
        """Return the runs of `length` words that lie in one text.

        Returns:
            A hash of each, Σ hash(word k) · factor^k modulo 2^64, mixed; and the number of its first word.
        """
        if len(self.starts) < length:
            return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
        with np.errstate(over="ignore"):
            words = _mixed(_sums(_values()[self.letters], self.starts, self.ends))
            first = np.arange(len(words) - length + 1)
            hashes = _mixed(_sums(words, first, first + length))
        whole = self.text[: len(first)] == self.text[length - 1 :]
        return hashes[whole], first[whole]

    @cached_property
    def spelling(self) -> tuple[bytes, Ints]:
        """The letters of all words as bytes, with one 0 behind each word; and (W + 1,) where each word begins among them."""
        shown = self.letters != 0
        shown[self.ends] = True
        lengths = self.ends - self.starts + 1
        return self.letters[shown].tobytes(), 2 * np.concatenate([[0], np.cumsum(lengths)])

    def spelled(self, first: int, length: int) -> bytes:
        """Return words from number `first` on, as the bytes of their letters, which are equal for equal words."""
        written, places = self.spelling
        return written[places[first] : places[first + length]]


@dataclass(frozen=True)
class Hits:
    """Runs of some texts that stand in an index."""

    text: Ints
    """(H,) number of the text, ascending."""
    run: Ints
    """(H,) number of the run in the index."""


class RunIndex:
    """The runs of words of some texts, in memory: about 45 bytes a run, and the letters.

    A run is a 64-bit hash in a sorted array; a table of bits, 32 for each run, answers at once for nearly all runs that are not
    in it. What is found is compared letter by letter, so that nothing is taken for something else.

    Args:
        texts: to index, each with the number of the document that it is part of; streamed.
        words: the length of a run.
        most: a run that more documents have is nobody's own (an instruction, a licence) and is left out; None for no limit.
    """

    def __init__(self, texts: Iterable[tuple[int, str]], words: int = WORDS, most: int | None = None) -> None:
        self.words = words
        hashes, owners, places, letters = [], [], [], []
        size = 0
        for batch in batched(texts, lambda text: len(text[1])):
            found = Words([text for _, text in batch])
            run, first = found.runs(words)
            written, at = found.spelling
            hashes.append(run)
            owners.append(np.array([number for number, _ in batch], dtype=np.int32)[found.text[first]])
            places.append(np.stack([at[first], at[first + words]]) + size)
            letters.append(written)
            size += len(written)
        self._letters = b"".join(letters)
        run = np.concatenate([np.empty(0, dtype=np.uint64), *hashes])
        owner = np.concatenate([np.empty(0, dtype=np.int32), *owners])
        place = np.concatenate([np.empty((2, 0), dtype=np.int64), *places], axis=1)
        del hashes, owners, places
        order = np.lexsort((owner, run))
        run, owner = run[order], owner[order]
        new = np.ones(len(run), dtype=np.bool_)  # each run once for each document
        new[1:] = (run[1:] != run[:-1]) | (owner[1:] != owner[:-1])
        run, owner, order = run[new], owner[new], order[new]
        keys, start, owned = np.unique(run, return_index=True, return_counts=True)
        few = owned <= (most or len(owner))
        self._keys: U64 = keys[few]
        self._place: Ints = place[:, order[start[few]]]
        self._owner = owner[np.repeat(few, owned)]
        self._start: Ints = np.concatenate([[0], np.cumsum(owned[few])])
        self._shift = np.uint64(64 - max(6, (32 * len(self._keys)).bit_length()))
        self._bits = np.zeros(1 << (61 - int(self._shift)), dtype=np.uint8)
        slot = self._keys >> self._shift
        np.bitwise_or.at(self._bits, slot >> np.uint64(3), np.uint8(1) << (slot & np.uint64(7)).astype(np.uint8))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, texts: Sequence[str]) -> Hits:
        """Return the runs of texts that stand in the index, in their order."""
        found = Words(texts)
        run, first = found.runs(self.words)
        slot = run >> self._shift
        maybe = (self._bits[slot >> np.uint64(3)] >> (slot & np.uint64(7)).astype(np.uint8)) & np.uint8(1) != 0
        run, first = run[maybe], first[maybe]
        key = np.searchsorted(self._keys, run)
        inside = key < len(self._keys)
        key, run, first = key[inside], run[inside], first[inside]
        equal = self._keys[key] == run
        key, first = key[equal], first[equal]
        begin, end = self._place[:, key].tolist()
        same = [
            self._letters[a:b] == found.spelled(place, self.words)
            for a, b, place in zip(begin, end, first.tolist(), strict=True)
        ]
        key, first = key[same], first[same]
        return Hits(found.text[first], key)

    def touches(self, text: str) -> bool:
        """Return whether a text has a run of the index."""
        return len(self.find([text]).run) > 0

    def owners(self, runs: Ints) -> tuple[Ints, Ints]:
        """Return which documents have which runs.

        Args:
            runs: (H,) numbers of runs.

        Returns:
            Two arrays, for each run and each of its documents: the place in `runs`, and the number of the document.
        """
        count = self._start[runs + 1] - self._start[runs]
        which = np.repeat(np.arange(len(runs)), count)
        within = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        return which, self._owner[self._start[runs][which] + within].astype(np.int64)

    def counts(self, documents: int, seen: NDArray[np.bool_] | None = None) -> Ints:
        """Return (documents,) how many different runs each document has.

        Args:
            documents: how many there are.
            seen: (runs,) count only these.
        """
        owner = self._owner if seen is None else self._owner[np.repeat(seen, np.diff(self._start))]
        return np.bincount(owner, minlength=documents)

    def words_of(self, run: int) -> str:
        """Return the words of a run, as they are compared."""
        begin, end = self._place[:, run].tolist()
        return self._letters[begin:end].decode("utf-16-le", "replace").replace("\0", " ").strip()


def overlapping(candidates: Sequence[str], others: Iterable[str], words: int = WORDS) -> set[int]:
    """Return the candidates that have `words` words in a row in common with any of the other texts.

    Args:
        candidates: texts; kept in memory.
        others: texts; streamed.
        words: the length of a run.
    """
    index = RunIndex(enumerate(candidates), words)
    hit: set[int] = set()
    for batch in batched(others, len):
        hit.update(index.owners(np.unique(index.find(batch).run))[1].tolist())
    return hit


def batched(items: Iterable[T], size_of: Callable[[T], int], most: int = BATCH) -> Iterator[list[T]]:
    """Yield items in lists of about `most` in size."""
    batch: list[T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += size_of(item)
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@cache
def _letters() -> U16:
    """Return for each UTF-16 unit the letter or digit that it counts as; 0 if it parts words, `_IGNORED` if it does not count."""
    return np.array([_letter(chr(code)) for code in range(1 << 16)], dtype=np.uint16)


def _letter(char: str) -> int:
    """See `_letters`. Characters beyond the first 65,536 (emoji, rare ideographs) are two units that part words."""
    if unicodedata.category(char)[0] == "M" or unicodedata.category(char) == "Cf":
        return _IGNORED
    plain = unicodedata.normalize("NFKD", char).lower()
    plain = "".join(c for c in plain if unicodedata.category(c)[0] != "M")
    if len(plain) != 1 or ord(plain) >= 1 << 16:
        plain = char
    return ord(plain) if plain.isalnum() else 0


@cache
def _values() -> U64:
    """Return a random number for each letter."""
    values = np.random.default_rng(0).integers(0, 1 << 64, 1 << 16, dtype=np.uint64)
    values[0] = 0
    return values


def _sums(values: U64, starts: Ints, ends: Ints) -> U64:
    """Return Σ value(k) · factor^(k - start) over k from each start to before its end, modulo 2^64."""
    power, inverse = _powers(1 << len(values).bit_length())
    total = np.empty(len(values) + 1, dtype=np.uint64)
    total[0] = 0
    np.cumsum(values * power[: len(values)], out=total[1:])
    sums: U64 = (total[ends] - total[starts]) * inverse[starts]
    return sums


@cache
def _powers(count: int) -> tuple[U64, U64]:
    """Return factor^k and factor^-k, modulo 2^64, for k below `count`."""
    powers = []
    for factor in (_FACTOR, _INVERSE):
        power = np.full(count, factor, dtype=np.uint64)
        power[0] = 1
        powers.append(np.cumprod(power, dtype=np.uint64))
    return powers[0], powers[1]


def _mixed(values: U64) -> U64:
    """Return numbers whose every bit depends on all bits of what they were (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
