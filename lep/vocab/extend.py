"""New tokens on top of an old BPE vocabulary, and old tokens cut from it, as pure functions over `tokenizer.json`."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darumeru.errors import UserError
from lep.tokenizer.folder import with_ids
from lep.tokenizer.scripts import has_script, only_in_script
from lep.tokenizer.vocabulary import SPACE, Vocabulary
from lep.tokenizer.words import count_words, segment
from lep.vocab.bpe import Merge, learn_merges

MAX_CHARS = 32
"""No learned token is longer than this many characters."""
_COVERAGE = 0.9999
"""SentencePiece style: characters of the scripts become tokens until this share is covered; others stay bytes."""


@dataclass(frozen=True)
class Extension:
    """A vocabulary with new tokens.

    Attributes:
        spec: content of `tokenizer.json`.
        new: ids of the new tokens in the order they were learned.
        counts: how often the corpus held each new token when it was learned.
        revived: old tokens that no text could produce before and that new merges now make.
        words: different words and words in all that were learned from.
    """

    spec: dict[str, Any]
    new: list[int]
    counts: list[int]
    revived: list[int]
    words: tuple[int, int]


def extend(
    old: Vocabulary,
    texts: Iterable[str],
    *,
    add: int,
    scripts: tuple[str, ...],
    min_count: int = 2,
    ids: Sequence[int] | None = None,
) -> Extension:
    """Learn `add` new tokens on top of the old merges (continued BPE).

    Only pairs whose result can occur in no text without the scripts are merged, so that every other text is encoded as
    before. New merges rank after all old ones, so that old segments are only ever joined. In a SentencePiece-style
    vocabulary characters of the scripts that are missing come first, as tokens without a merge.

    Args:
        old: a BPE vocabulary.
        texts: the corpus.
        add: how many new tokens.
        scripts: the scripts that tokens are learned for; none for all.
        min_count: rarer pairs are not merged.
        ids: the ids to give to new tokens; by default those after the largest old one.

    Raises:
        UserError: a Unigram vocabulary, a corpus without the scripts, or one too small for so many tokens.
    """
    if old.family == "unigram":
        raise UserError("A Unigram vocabulary has no merges to continue. Use `lep vocab train` to make a new one.")
    if add < 1:
        raise UserError(f"The number of new tokens must be at least 1, not {add}.")
    counted = count_words(texts, old, scripts)
    if not counted:
        raise UserError(
            f"The corpus holds no word in {', '.join(scripts) or 'any script'}. Name another corpus or other --scripts."
        )
    free = iter(ids if ids is not None else range(old.size, old.size + add))
    vocab: dict[str, int] = {**old.spec["model"]["vocab"], **{e["content"]: i for i, e in old.added.items()}}
    fresh: dict[str, int] = {}
    counts: list[int] = []
    for character, count in _missing_characters(old, counted, scripts)[:add]:
        fresh[character] = next(free)
        counts.append(count)
    grown = Vocabulary(_with(old, {**vocab, **fresh}, [])) if fresh else old
    merges, strings, revived = _learn(grown, counted, add - len(fresh), scripts, min_count, free)
    learned = {m.result for m in merges if m.result in strings}
    if len(fresh) + len(learned) < add:
        raise UserError(
            f"The corpus ({sum(counted.values()):,} words, {len(counted):,} different) is enough for "
            f"{len(fresh) + len(learned):,} new tokens, and {add:,} are wanted. Give more text or ask for fewer."
        )
    first: dict[int, int] = {}
    for merge in merges:
        first.setdefault(merge.result, merge.count)
    fresh |= {strings[index]: index for index in first if index in strings}
    counts += [first[index] for index in first if index in strings]
    names = {**grown.strings, **strings}
    pairs = [(names[merge.left], names[merge.right]) for merge in merges]
    spec = _with(old, {**vocab, **fresh}, pairs)
    return Extension(spec, list(fresh.values()), counts, sorted(revived), (len(counted), sum(counted.values())))


def prune(
    old: Vocabulary,
    usage: NDArray[np.int64],
    *,
    remove: int,
    protect: Collection[int] = (),
) -> set[int]:
    """Choose the `remove` least used tokens, leaves first: a token goes only when no kept merge is built on it.

    When a token goes, its uses go to the two parts that it was merged from, so that what takes its place is judged by
    the text it will then carry. Bytes, single characters of the byte alphabet, added tokens and `protect` stay.

    Args:
        old: a BPE vocabulary.
        usage: uses of each id on a corpus, |V|.
        remove: how many.
        protect: further ids to keep.

    Raises:
        UserError: fewer tokens than that can go.
    """
    if old.family == "unigram":
        raise UserError("A Unigram vocabulary has no merges to prune. Use `lep vocab train` to make a new one.")
    made_from: dict[int, list[tuple[int, int]]] = {}
    built_on: Counter[int] = Counter()
    for left, right in old.merges:
        ids = old.ids.get(left), old.ids.get(right), old.ids.get(left + right)
        if None in ids:
            continue
        parts, result = (int(ids[0] or 0), int(ids[1] or 0)), int(ids[2] or 0)
        made_from.setdefault(result, []).append(parts)
        built_on.update(set(parts))
    stay = set(protect) | set(old.added)
    stay |= {index for index in old.strings if old.is_byte(index)}
    unknown = old.spec["model"].get("unk_token")
    if isinstance(unknown, str) and unknown in old.ids:
        stay.add(old.ids[unknown])
    uses = usage.astype(np.int64).copy()
    heap = [(int(uses[i]), -i) for i in old.strings if i not in stay and not built_on[i]]
    heapq.heapify(heap)
    gone: set[int] = set()
    while len(gone) < remove:
        if not heap:
            raise UserError(
                f"Only {len(gone):,} of {len(old.strings):,} tokens can be removed (the others are bytes, special, "
                f"needed by the texts to keep, or parts of such tokens), and {remove:,} are to go. Keep more tokens."
            )
        count, negative = heapq.heappop(heap)
        index = -negative
        if index in gone:
            continue
        if count != uses[index]:
            heapq.heappush(heap, (int(uses[index]), negative))
            continue
        gone.add(index)
        for number, parts in enumerate(made_from.get(index, [])):
            for part in set(parts):
                built_on[part] -= 1
            if number == 0:
                for part in parts:
                    uses[part] += count
        touched = {part for parts in made_from.get(index, []) for part in parts}
        for part in touched:
            if not built_on[part] and part not in stay and part not in gone:
                heapq.heappush(heap, (int(uses[part]), -part))
    return gone


def without(old: Vocabulary, gone: Collection[int], *, compact: bool) -> tuple[dict[str, Any], dict[int, int]]:
    """Return `tokenizer.json` without some tokens, and old id → new id of the others.

    Merges whose parts or result vanished are dropped, the others keep their order.

    Args:
        old: a BPE vocabulary.
        gone: ids to drop, none of which a kept merge is built on.
        compact: close the gaps in the ids (in the old order); False keeps every id.
    """
    dropped = set(gone)
    kept = sorted(index for index in old.strings if index not in dropped)
    ids = {index: number for number, index in enumerate(kept)} if compact else {index: index for index in kept}
    vocab = {old.strings[index]: ids[index] for index in kept}
    pairs = [(left, right) for left, right in old.merges if {left, right, left + right} <= vocab.keys()]
    return with_ids({**_with(old, vocab, []), "model": _model(old, vocab, pairs)}, ids), ids


def _learn(
    vocabulary: Vocabulary,
    counted: Mapping[str, int],
    wanted: int,
    scripts: tuple[str, ...],
    min_count: int,
    free: Iterable[int],
) -> tuple[list[Merge], dict[int, str], set[int]]:
    """Return merges over the counted words, the strings of the new ids, and the old ids that came back to life."""
    names = dict(vocabulary.strings)
    ids = dict(vocabulary.ids)
    strings: dict[int, str] = {}
    revived: set[int] = set()
    supply = iter(free)
    byte_level = vocabulary.family == "byte-level"

    def name(left: int, right: int) -> int | None:
        text = names[left] + names[right]
        data = vocabulary.bytes_of_written(text)
        if byte_level:
            if len(data.decode(errors="ignore")) > MAX_CHARS or not only_in_script(data, scripts):
                return None
        elif len(text) > MAX_CHARS or (left in byte_tokens or right in byte_tokens) or not has_script(text, scripts):
            return None
        if text in ids:
            if ids[text] in vocabulary.added:
                return None
            if ids[text] not in strings:
                revived.add(ids[text])
            return ids[text]
        index = next(supply)
        ids[text] = index
        names[index] = strings[index] = text
        return index

    byte_tokens = {i for i in vocabulary.strings if not byte_level and vocabulary.is_byte(i)}
    flat, lengths = segment(counted, vocabulary)
    merges = learn_merges(
        (flat, lengths),
        np.fromiter(counted.values(), dtype=np.int64, count=len(counted)),
        new_tokens=wanted,
        name=name,
        is_new=strings.__contains__,
        min_count=min_count,
        known={
            (ids[left], ids[right]): ids[left + right]
            for left, right in vocabulary.merges
            if left in ids and right in ids and left + right in ids
        },
    )
    return merges, strings, revived


def _missing_characters(old: Vocabulary, counted: Mapping[str, int], scripts: tuple[str, ...]) -> list[tuple[str, int]]:
    """Return, in SentencePiece's style, characters of the scripts without a token, most frequent first, up to the coverage."""
    if old.family == "byte-level":
        return []
    characters: Counter[str] = Counter()
    for word, count in counted.items():
        for character in word:
            characters[character] += count
    total = sum(characters.values())
    covered = 0
    missing = []
    for character, count in sorted(characters.items(), key=lambda item: (-item[1], item[0])):
        if covered >= _COVERAGE * total:
            break
        covered += count
        if character != SPACE and character not in old.ids and has_script(character, scripts):
            missing.append((character, count))
    return missing


def _with(old: Vocabulary, vocab: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return the old `tokenizer.json` with another vocabulary and further merges after the old ones."""
    return {**old.spec, "model": _model(old, vocab, [*old.merges, *pairs])}


def _model(old: Vocabulary, vocab: Mapping[str, int], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    # Merges stay written the way they were: strings before tokenizers 0.20, pairs since.
    listed = old.spec["model"].get("merges", [])
    as_text = bool(listed) and isinstance(listed[0], str)
    ordered = dict(sorted(vocab.items(), key=lambda item: item[1]))
    merges = [" ".join(pair) for pair in pairs] if as_text else [list(pair) for pair in pairs]
    return {**old.spec["model"], "vocab": ordered, "merges": merges}
