"""Counts over a corpus: its words in a tokenizer's own alphabet, and how often each token is used."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import regex
from numpy.typing import NDArray

from lep.tokenizer.scripts import has_script
from lep.tokenizer.vocabulary import SPACE, Vocabulary, chars_to_bytes

_CHUNK = re.compile(r" ?\S+")
_LETTERS = regex.compile(SPACE + r"?[\p{L}\p{M}]+")
_MOST_CHUNKS = 6_000_000
"""When more different chunks are in memory, the rarest are dropped; 6 million take about 1 GB."""


def count_words(texts: Iterable[str], vocabulary: Vocabulary, scripts: tuple[str, ...]) -> dict[str, int]:
    """Return the words that hold one of the scripts, written in the model's alphabet, with their counts in order of first sight.

    A word is what the tokenizer never merges across: the parts that its own pre-tokenizer makes (byte-level), or a run
    of letters and marks with the space before it (SentencePiece style, whose tokenizers have no pre-tokenizer). Texts
    are cut at white space first, so that the pre-tokenizer sees each different chunk once. Where chunks are more than the
    memory is to hold, counts are too low by what was dropped of a chunk (`_without_rarest`).

    Args:
        texts: documents, streamed.
        vocabulary: the tokenizer.
        scripts: Unicode scripts; none for words of any script.
    """
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(_CHUNK.findall(text))
        if len(chunks) > _MOST_CHUNKS:
            chunks = _without_rarest(chunks, _MOST_CHUNKS // 2)
    words: dict[str, int] = {}
    splitter = vocabulary.tokenizer.pre_tokenizer
    normalizer = vocabulary.tokenizer.normalizer
    for chunk, count in chunks.items():
        if not has_script(chunk, scripts):
            continue
        if vocabulary.family == "byte-level":
            text = normalizer.normalize_str(chunk) if normalizer is not None else chunk
            parts = [part for part, _ in splitter.pre_tokenize_str(text)] if splitter is not None else [text]
            for part in parts:
                if has_script((chars_to_bytes(part) or b"").decode(errors="ignore"), scripts):
                    words[part] = words.get(part, 0) + count
        else:
            for part in _LETTERS.findall(chunk.replace(" ", SPACE)):
                if has_script(part, scripts):
                    words[part] = words.get(part, 0) + count
    return words


def _without_rarest(chunks: Counter[str], most: int) -> Counter[str]:
    """Return at most `most` chunks with their counts: those above the lowest count that leaves so few, in their order.

    Half of the room is made free each time, or the dropping itself would be the work: once 6 million chunks have been seen
    twice, every document would find the room full. The idea is that of lossy counting (Manku and Motwani, VLDB 2002).
    """
    sizes = Counter(chunks.values())
    left, least = len(chunks), 0
    for count in sorted(sizes):
        if left <= most:
            break
        left, least = left - sizes[count], count
    return Counter({chunk: count for chunk, count in chunks.items() if count > least})


def segment(
    words: Iterable[str], vocabulary: Vocabulary, block: int = 100_000
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the words' tokens by the vocabulary's own merges: all ids in one array, and each word's length."""
    ids: list[NDArray[np.int32]] = []
    lengths: list[NDArray[np.int64]] = []
    for batch in _batches(words, block):
        encoded = vocabulary.bare.encode_batch_fast(batch, add_special_tokens=False)
        found = [item.ids for item in encoded]
        lengths.append(np.array([len(item) for item in found], dtype=np.int64))
        ids.append(np.fromiter((index for item in found for index in item), dtype=np.int32))
    if not ids:
        return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    return np.concatenate(ids), np.concatenate(lengths)


def count_tokens(
    texts: Iterable[str], vocabulary: Vocabulary, *, limit: int | None = None, block: int = 256
) -> NDArray[np.int64]:
    """Count how often each id is used when the texts are encoded, |V|.

    Args:
        texts: documents, streamed.
        vocabulary: the tokenizer.
        limit: stop after so many characters.
        block: documents encoded at a time.
    """
    counts = np.zeros(vocabulary.size, dtype=np.int64)
    seen = 0
    for batch in _batches(_bounded(texts), block):
        for item in vocabulary.tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            counts += np.bincount(np.array(item.ids, dtype=np.int64), minlength=vocabulary.size)
        seen += sum(len(text) for text in batch)
        if limit is not None and seen >= limit:
            break
    return counts


def _bounded(texts: Iterable[str], most: int = 1 << 16) -> Iterator[str]:
    """Yield long documents in parts of at most 65,536 characters, cut at line ends where there are any."""
    for text in texts:
        start = 0
        while len(text) - start > most:
            cut = text.rfind("\n", start, start + most) + 1
            stop = cut if cut > start else start + most
            yield text[start:stop]
            start = stop
        yield text[start:]


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
