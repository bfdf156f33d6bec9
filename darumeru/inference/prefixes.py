"""Prompts with a common prefix: it is tokenized once, each prompt anew from a little before the end of it.

The tokens of a text are not the tokens of its parts one after another. They may be joined at a seam where both sides were
tokenized with the same text around it:

* Texts are split before byte-pair encoding (special tokens, then the pre-tokenizer) in one pass from left to right that looks
  ahead no further than the next piece. Where such a split is in both sides and the text goes on alike behind it, the pieces
  left of it are those of the prefix, the pieces right of it those of the rest; each is encoded for itself.
* Where a tokenizer does not split (SentencePiece), a sequence of tokens is the encoding of its text if and only if that holds
  for each two neighbours (Berglund and van der Merwe, "Formalizing BPE tokenization", 2023). Both sides are encodings, and
  they have tokens in common, so each two neighbours are together in one of them.

A tokenizer of another kind, and a prefix whose first prompts come out otherwise, gets each prompt tokenized whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from darumeru.requests import PackedTokens

_LEAST_TOKENS = 64
"""Shorter prefixes are not worth it."""
_OVERLAP_TOKENS = 32
"""How much of the prefix is tokenized anew with each prompt, about."""
_SEAM_TOKENS = 4
"""How many tokens both sides have in common."""
_AHEAD_TOKENS = 8
"""So many tokens and as many characters of the prefix lie behind the seam, for what a tokenizer looks ahead."""
_MOST = 1024
"""So many prefixes are remembered."""

Encode = Callable[[list[str]], list[list[int]]]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """A prompt, with what it shares with others in memory once."""

    text: str | tuple[str, str]
    tokens: PackedTokens


@dataclass(frozen=True)
class _Prefix:
    text: str
    kept: list[int]
    """Its tokens up to the seam, the seam included."""
    packed: bytes
    start: int
    """The character at which the text is tokenized anew."""
    again: list[int]
    """The first tokens from `start` on, the last of which are the seam."""


class SharedPrefixes:
    """Encodes prompts; those with equal keys are taken to begin alike.

    Args:
        tokenizer: a transformers tokenizer.
        encode: whole prompts → token ids, with the special tokens that belong around them.
    """

    def __init__(self, tokenizer: Any, encode: Encode) -> None:
        self._tokenizer, self._encode = tokenizer, encode
        self._known: dict[Key, _Prefix | str | None] = {}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        model = getattr(backend, "model", None)
        self._added = frozenset(getattr(tokenizer, "added_tokens_decoder", ()))
        self._joins = type(model).__name__ == "BPE" and not getattr(model, "dropout", None)

    def prompts(self, texts: Sequence[str], keys: Sequence[Key]) -> list[Prompt]:
        """Return texts with their tokens, exactly those of each whole text; an empty key shares nothing."""
        begin = [
            self._beginning(key, text) if key and self._joins else None for text, key in zip(texts, keys, strict=True)
        ]
        rests = iter(self._encode([t[b.start :] for t, b in zip(texts, begin, strict=True) if b]))
        wholes = iter(self._encode([t for t, b in zip(texts, begin, strict=True) if not b]))
        found = []
        for text, prefix in zip(texts, begin, strict=True):
            if prefix is None:
                found.append(Prompt(text, PackedTokens.of(next(wholes))))
                continue
            rest = _behind(prefix, next(rests))
            if rest is None:
                found.append(Prompt(text, PackedTokens.of(self._encode([text])[0])))
            else:
                parts = (prefix.text, text[len(prefix.text) :])
                found.append(Prompt(parts, PackedTokens.of(rest, prefix.packed)))
        return found

    def _beginning(self, key: Key, text: str) -> _Prefix | None:
        """Return what texts with this key have begun with so far, if `text` does too; else find what they have in common."""
        if key not in self._known:
            if len(self._known) == _MOST:
                del self._known[next(iter(self._known))]  # the oldest
            self._known[key] = text
            return None
        known = self._known[key]
        if known is None:
            return None
        if isinstance(known, _Prefix) and text.startswith(known.text):
            return known
        other = known if isinstance(known, str) else known.text
        length = next(
            (i for i, (a, b) in enumerate(zip(other, text, strict=False)) if a != b), min(len(other), len(text))
        )
        found = self._found(text[:length], [other, text])
        self._known[key] = found
        return found

    def _found(self, text: str, examples: Sequence[str]) -> _Prefix | None:
        """Return a prefix with its seam; None if there is no seam in it, or the examples' tokens would be others."""
        whole = self._encode([text])[0] if text else []
        if len(whole) < _LEAST_TOKENS:
            return None
        backend = self._tokenizer.backend_tokenizer
        first = backend.encode(text, add_special_tokens=False)
        start = first.offsets[max(0, len(first.ids) - _OVERLAP_TOKENS)][0]
        second = backend.encode(text[start:], add_special_tokens=False)
        seam = _seam(first, second, start, len(text), self._added)
        if seam is None:
            return None
        kept = _with_special(whole, first.ids[: seam[0]])
        again = _with_special(self._encode([text[start:]])[0], second.ids[: seam[1]])
        prefix = _Prefix(text, kept, PackedTokens.of(kept).tail, start, again)
        for example in examples:
            rest = _behind(prefix, self._encode([example[start:]])[0])
            if rest is None or kept + rest != self._encode([example])[0]:
                return None
        return prefix


def _with_special(whole: list[int], ids: list[int]) -> list[int]:
    """Return the prefix of `whole` that ends in `ids`: the special tokens before a text, and its first tokens."""
    before = next((n for n in range(len(whole)) if whole[n : n + len(ids)] == ids), 0)
    return whole[: before + len(ids)]


def _behind(prefix: _Prefix, ids: list[int]) -> list[int] | None:
    """Return the tokens behind the seam, of those from `start` on; None if they do not come to the seam alike."""
    count = len(prefix.again)
    return ids[count:] if ids[:count] == prefix.again else None


def _seam(first: Any, second: Any, start: int, length: int, added: AbstractSet[int]) -> tuple[int, int] | None:
    """Return behind how many tokens of each encoding the two can be joined.

    Args:
        first: the encoding of a text.
        second: the encoding of the same text from the character `start` on.
        start: see `second`.
        length: the characters of the text.
        added: ids of the tokens that no encoding makes, special ones above all.
    """
    pairs = range(1, len(first.ids))
    # Whether the tokenizer splits texts itself, not only at added tokens; the seam then begins at a split of both.
    splits = any(not _inside(first.word_ids, n) and not {*first.ids[n - 1 : n + 1]} & added for n in pairs)
    places: dict[int, int] = {}
    for index, (begin, _) in enumerate(first.offsets):
        places.setdefault(begin, index)
    for j in range(1, len(second.ids) - _SEAM_TOKENS - _AHEAD_TOKENS):
        i = places.get(second.offsets[j][0] + start, 0)
        ends = second.offsets[j + _SEAM_TOKENS - 1][1] + start
        if (
            i
            and second.offsets[j][0] > second.offsets[j - 1][0]
            and first.ids[i : i + _SEAM_TOKENS] == second.ids[j : j + _SEAM_TOKENS]
            and ends + _AHEAD_TOKENS <= length
            and not (splits and (_inside(first.word_ids, i) or _inside(second.word_ids, j)))
        ):
            return i + _SEAM_TOKENS, j + _SEAM_TOKENS
    return None


def _inside(words: Sequence[int | None], index: int) -> bool:
    """Return whether a token goes on with the piece of the token before it."""
    return words[index] is not None and words[index] == words[index - 1]
