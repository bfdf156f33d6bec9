"""The invariants of a new vocabulary, whatever made it; checked before anything is written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lep.tokenizer.folder import PROBES, chat_template, loading_difference
from lep.tokenizer.scripts import has_script
from lep.tokenizer.vocabulary import Vocabulary

Way = Literal["extend", "swap", "optimize", "train"]

ENGLISH_PROBES = (
    "It was the best of times, it was the worst of times; 1,859 pages, 42% of them read.",
    "def main(argv: list[str]) -> int:\n    return 0 if argv else 1\n\n\n# done",
    "https://example.org/a-b_c?d=e&f=%20g — “quoted”, naïve café, 5 × 10⁻³ µm…",
    '{"key": [1, 2.5, null, true], "nested": {"a\\n": "\\u0041"}}',
    "  indented\n\ttabbed   spaced  \n",
)


@dataclass(frozen=True)
class Check:
    """One invariant: what it says, whether it holds, and the figures (or the first case against it)."""

    name: str
    passed: bool
    detail: str


def way_of(old: Vocabulary, new: Vocabulary) -> Way:
    """Return how a vocabulary was made from another, judged by what they share."""
    if all(new.ids.get(token) == index for token, index in old.ids.items()):
        return "extend"
    shared = sum(new.ids.get(token) == index for token, index in old.ids.items())
    if old.size == new.size and shared > len(old.ids) / 2:
        return "swap"
    merges = set(old.merges)
    common = sum(pair in merges for pair in new.merges)
    return "optimize" if merges and common > len(new.merges) / 10 and old.family == new.family else "train"


def check_vocabulary(
    old: Vocabulary,
    new: Vocabulary,
    texts: Sequence[str],
    *,
    scripts: tuple[str, ...],
    way: Way | None = None,
    keep: Sequence[str] = (),
    model_config: Path | None = None,
) -> list[Check]:
    """Check the invariants of a new vocabulary against the one it came from.

    Args:
        old: the vocabulary it came from, read from a folder.
        new: the new vocabulary, read from a folder.
        texts: texts to try besides the built-in probes.
        scripts: the scripts that the new tokens are for.
        way: how it was made; judged by the ids where None.
        keep: texts that must be segmented as before (`optimize` and `swap`).
        model_config: the `config.json` that will lie beside the new tokenizer.
    """
    way = way or way_of(old, new)
    tried = [*PROBES, *ENGLISH_PROBES, *_random_texts(), *texts]
    checks = [_special_tokens(old, new, way), _template(old, new)]
    if way in ("extend", "swap"):
        checks.append(_ids(old, new, way))
    if way != "train":
        checks += [_old_merges(old, new, way), _merge_list(old, new), _producible(old, new)]
    if way == "extend":
        checks += [_unchanged(old, new, tried, scripts), _only_joined(old, new, tried)]
    if way in ("optimize", "swap") and keep:
        checks.append(_same_pieces(old, new, keep, scripts))
    checks += [_round_trip(old, new, tried), _loads(new, tried, model_config)]
    return checks


def _special_tokens(old: Vocabulary, new: Vocabulary, way: Way) -> Check:
    name = "special and added tokens keep text, flags and single ids"
    for index, entry in old.added.items():
        text = entry["content"]
        place = new.by_added_text.get(text)
        if place is None:
            return Check(name, False, f"{text!r} is gone")
        if way in ("extend", "swap") and place != index:
            return Check(name, False, f"{text!r} moved from id {index} to {place}")
        flags = {key: value for key, value in entry.items() if key != "id"}
        if {key: value for key, value in new.added[place].items() if key != "id"} != flags:
            return Check(name, False, f"the flags of {text!r} changed")
        ids = new.tokenizer.encode(text, add_special_tokens=False).ids
        if ids != [place] and len(old.tokenizer.encode(text, add_special_tokens=False).ids) == 1:
            return Check(name, False, f"{text!r} encodes to {ids}")
    return Check(name, True, f"{len(old.added)} tokens")


def _template(old: Vocabulary, new: Vocabulary) -> Check:
    name = "the chat template renders the same text"
    if old.folder is None or new.folder is None:
        return Check(name, True, "not read from folders")
    templates = [chat_template(old.folder), chat_template(new.folder)]
    if templates[0] != templates[1]:
        return Check(name, False, "the template itself changed")
    if templates[0] is None:
        return Check(name, True, "the model has none")
    rendered = [_render(folder) for folder in (old.folder, new.folder)]
    return Check(name, rendered[0] == rendered[1], "rendered alike" if rendered[0] == rendered[1] else "differs")


def _render(folder: Path) -> str:
    from transformers import AutoTokenizer

    from darumeru.chats import chat_text

    messages = [{"role": "user", "content": "Привет, how are you?"}, {"role": "assistant", "content": "Fine."}]
    try:
        loaded: Any = AutoTokenizer.from_pretrained(folder)
        return chat_text(loaded, [*messages, messages[0]], add_generation_prompt=True)
    except Exception as error:
        # A template may refuse a conversation; it must then refuse it in both folders.
        return f"refused: {type(error).__name__}"


def _ids(old: Vocabulary, new: Vocabulary, way: Way) -> Check:
    name = "old tokens keep their ids"
    if way == "extend":
        moved = [token for token, index in old.ids.items() if new.ids.get(token) != index]
        return Check(name, not moved, f"{len(old.ids):,} tokens" if not moved else f"{moved[0]!r} does not")
    moved = [token for token, index in old.ids.items() if token in new.ids and new.ids[token] != index]
    kept = sum(token in new.ids for token in old.ids)
    same = not moved and new.size == old.size
    return Check(name, same, f"{kept:,} of {len(old.ids):,} tokens stay, size {old.size:,} → {new.size:,}")


def _old_merges(old: Vocabulary, new: Vocabulary, way: Way) -> Check:
    if way == "extend":
        same = new.merges[: len(old.merges)] == old.merges
        return Check("the old merges are a prefix of the new ones", same, f"{len(old.merges):,} merges")
    ranks = {pair: rank for rank, pair in enumerate(old.merges)}
    kept = 0
    last = -1
    while kept < len(new.merges) and ranks.get(new.merges[kept], -1) > last:
        last = ranks[new.merges[kept]]
        kept += 1
    # What was cut may be learned again, as a new merge; a token that stayed must not be made a second way.
    made = {left + right for left, right in new.merges[:kept]}
    same = not any(pair in ranks and pair[0] + pair[1] in made for pair in new.merges[kept:])
    return Check("kept old merges stay in order, before new ones", same, f"{kept:,} of {len(old.merges):,} merges")


def _merge_list(old: Vocabulary, new: Vocabulary) -> Check:
    name = "merges are consistent: parts and result exist, each once"
    vocab = new.spec["model"]["vocab"]
    known = set(old.merges)
    if len(set(new.merges)) != len(new.merges):
        return Check(name, False, "a merge is listed twice")
    made = {left + right for left, right in new.merges}
    done: set[str] = set()
    for left, right in new.merges:
        if left not in vocab or right not in vocab or left + right not in vocab:
            return Check(name, False, f"{left!r} + {right!r} has no id")
        # SentencePiece vocabularies list merges by score; only new merges must come after those they build on.
        if (left, right) not in known and any(part in made and part not in done for part in (left, right)):
            return Check(name, False, f"{left!r} + {right!r} comes before a merge that it needs")
        done.add(left + right)
    return Check(name, True, f"{len(new.merges):,} merges")


def _producible(old: Vocabulary, new: Vocabulary) -> Check:
    name = "every new token can be produced"
    fresh = [index for token, index in new.ids.items() if token not in old.ids and index not in new.added]
    # With `ignore_merges` (Llama-3) a word that is a token needs no merge, but inside a longer word it does.
    merging = Vocabulary({**new.spec, "model": {**new.spec["model"], "ignore_merges": False}}) if new.merges else new
    encoded = merging.bare.encode_batch_fast([new.strings[index] for index in fresh], add_special_tokens=False)
    dead = [index for index, item in zip(fresh, encoded, strict=True) if item.ids != [index]]
    detail = f"{len(fresh):,} tokens, {len(dead):,} unreachable"
    return Check(name, not dead, detail + (f", such as {new.strings[dead[0]]!r}" if dead else ""))


def _unchanged(old: Vocabulary, new: Vocabulary, texts: Sequence[str], scripts: tuple[str, ...]) -> Check:
    plain = [text for text in texts if not has_script(text, scripts)]
    label = ", ".join(scripts) or "any script"
    name = f"texts without {label} are encoded as before"
    if not scripts:
        return Check(name, True, "tokens are for all scripts")
    different = [text for text, left, right in zip(plain, *_encode(old, new, plain), strict=True) if left != right]
    detail = f"{len(plain):,} texts, {len(different):,} changed"
    return Check(name, not different, detail + (f", such as {different[0][:60]!r}" if different else ""))


def _only_joined(old: Vocabulary, new: Vocabulary, texts: Sequence[str]) -> Check:
    name = "other texts: old pieces are only joined"
    for text, left, right in zip(texts, *_encode(old, new, texts), strict=True):
        if left == right:
            continue
        before, after = _boundaries(old, left), _boundaries(new, right)
        if before[-1] != after[-1] or not set(after) <= set(before):
            return Check(name, False, f"not in {text[:60]!r}")
    return Check(name, True, f"{len(texts):,} texts")


def _same_pieces(old: Vocabulary, new: Vocabulary, texts: Sequence[str], scripts: tuple[str, ...]) -> Check:
    plain = [text for text in texts if not scripts or not has_script(text, scripts)]
    name = "texts to keep are segmented as before"
    changed = 0
    for left, right in zip(*_encode(old, new, plain), strict=True):
        changed += [old.bytes_of(i) for i in left] != [new.bytes_of(i) for i in right]
    return Check(name, changed == 0, f"{len(plain):,} texts, {changed:,} changed")


def _round_trip(old: Vocabulary, new: Vocabulary, texts: Sequence[str]) -> Check:
    name = "decode(encode(text)) as with the old tokenizer, or exact"
    encoded = _encode(old, new, texts)
    wanted = old.tokenizer.decode_batch(encoded[0], skip_special_tokens=False)
    got = new.tokenizer.decode_batch(encoded[1], skip_special_tokens=False)
    for text, left, right in zip(texts, wanted, got, strict=True):
        if right not in (left, text):
            return Check(name, False, f"{text[:60]!r} came back as {right[:60]!r}")
    return Check(name, True, f"{len(texts):,} texts")


def _loads(new: Vocabulary, texts: Sequence[str], model_config: Path | None) -> Check:
    name = "AutoTokenizer reads the same ids"
    if new.folder is None:
        return Check(name, True, "not read from a folder")
    difference = loading_difference(new.folder, texts[:200], model_config=model_config)
    return Check(name, difference is None, difference or f"{min(len(texts), 200):,} texts")


def _encode(old: Vocabulary, new: Vocabulary, texts: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    made = [
        [item.ids for item in vocabulary.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        for vocabulary in (old, new)
    ]
    return made[0], made[1]


def _boundaries(vocabulary: Vocabulary, ids: Sequence[int]) -> list[int]:
    ends: list[int] = np.cumsum([0, *(len(vocabulary.bytes_of(index)) for index in ids)]).tolist()
    return ends


def _random_texts(number: int = 50) -> list[str]:
    """Return fixed noise: characters of all planes, and byte soup as a text reader would hand it on."""
    rng = random.Random(20261121)
    blocks = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x52F), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF)]
    texts = []
    for index in range(number):
        if index % 2:
            texts.append(bytes(rng.randrange(256) for _ in range(80)).decode(errors="replace"))
        else:
            texts.append("".join(chr(rng.randint(*rng.choice(blocks))) for _ in range(60)))
    return texts
