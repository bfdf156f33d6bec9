"""Scripts and languages: which characters a new vocabulary is for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import regex

from darumeru.errors import UserError

# Languages by ISO 639-1 code → Unicode scripts (their names in Unicode's Scripts.txt). Any other: --scripts.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "am": ("Ethiopic",),
    "ar": ("Arabic",),
    "be": ("Cyrillic",),
    "bg": ("Cyrillic",),
    "bn": ("Bengali",),
    "el": ("Greek",),
    "fa": ("Arabic",),
    "gu": ("Gujarati",),
    "he": ("Hebrew",),
    "hi": ("Devanagari",),
    "hy": ("Armenian",),
    "ja": ("Han", "Hiragana", "Katakana"),
    "ka": ("Georgian",),
    "kk": ("Cyrillic",),
    "km": ("Khmer",),
    "ko": ("Hangul",),
    "ky": ("Cyrillic",),
    "mk": ("Cyrillic",),
    "mn": ("Cyrillic",),
    "mr": ("Devanagari",),
    "my": ("Myanmar",),
    "ne": ("Devanagari",),
    "ru": ("Cyrillic",),
    "ta": ("Tamil",),
    "te": ("Telugu",),
    "tg": ("Cyrillic",),
    "th": ("Thai",),
    "tt": ("Cyrillic",),
    "uk": ("Cyrillic",),
    "ur": ("Arabic",),
    "zh": ("Han",),
}


def scripts_of(lang: str | None, scripts: Sequence[str] | None) -> tuple[str, ...]:
    """The scripts that were asked for: `scripts` if given (`any` stands for all), else those of the language.

    Raises:
        UserError: an unknown script, or a language without an entry here.
    """
    if scripts:
        if "any" in scripts:
            return ()
        for script in scripts:
            _pattern((script,))
        return tuple(scripts)
    if lang is None or lang not in LANGUAGES:
        raise UserError(
            f"No script is known for the language {lang!r} (known: {', '.join(sorted(LANGUAGES))}). "
            "Name the scripts themselves, such as --scripts Latin."
        )
    return LANGUAGES[lang]


@lru_cache(maxsize=128)
def _pattern(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    try:
        return regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts) + "]")
    except regex.error:
        raise UserError(
            f"Unknown script in {', '.join(scripts)}. Use Unicode script names such as Cyrillic, Latin, Devanagari."
        ) from None


def has_script(text: str, scripts: tuple[str, ...]) -> bool:
    """Return whether a character of one of the scripts is in the text (any text, where no script is named)."""
    return not scripts or _pattern(scripts).search(text) is not None


def count_script(text: str, scripts: tuple[str, ...]) -> int:
    """Count the characters of the text that belong to one of the scripts."""
    return len(text) if not scripts else len(_pattern(scripts).findall(text))


def script_shares(texts: Iterable[str], *, limit: int | None = 1_000_000) -> dict[str, float]:
    """The scripts of the texts' letters with their shares, the largest first; {} where there is no letter.

    Letters are those of Unicode's classes L and M; those that all scripts share (Common, Inherited) do not count, and
    rare scripts are together "other".

    Args:
        texts: documents; only as many are read as the limit allows.
        limit: characters to look at, None for all.
    """
    characters: Counter[str] = Counter()
    seen = 0
    for text in texts:
        part = text if limit is None else text[: limit - seen]
        characters.update(part)
        seen += len(part)
        if limit is not None and seen >= limit:
            break
    counts: Counter[str] = Counter()
    for character, count in characters.items():
        script = _script(character)
        if script is not None:
            counts[script] += count
    return {script: count / counts.total() for script, count in counts.most_common()}


_LIVING = (
    "Latin", "Cyrillic", "Han", "Arabic", "Greek", "Hebrew", "Devanagari", "Hiragana", "Katakana", "Hangul", "Armenian",
    "Georgian", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala", "Thai",
    "Lao", "Tibetan", "Myanmar", "Khmer", "Ethiopic", "Mongolian", "Cherokee", "Syriac", "Thaana", "Tifinagh", "Nko",
    "Canadian_Aboriginal", "Bopomofo", "Yi", "Javanese", "Coptic", "Gothic", "Glagolitic",
)  # fmt: skip


@lru_cache(maxsize=1 << 16)
def _script(character: str) -> str | None:
    """The script of a letter or mark; None for anything else and for what all scripts share."""
    if not _LETTER.match(character):
        return None
    return next((name for name in _LIVING if _pattern((name,)).match(character)), "other")


_LETTER = regex.compile(r"[[\p{L}\p{M}]--[\p{Script=Common}\p{Script=Inherited}]]", regex.V1)


@lru_cache(maxsize=32)
def foreign_letters(scripts: tuple[str, ...]) -> regex.Pattern[str]:
    """A pattern of one letter or mark of any script but these and what all scripts share.

    Raises:
        UserError: an unknown script.
    """
    _pattern(scripts)
    own = "".join(rf"\p{{Script={name}}}" for name in (*scripts, "Common", "Inherited"))
    return regex.compile(rf"[[\p{{L}}\p{{M}}]--[{own}]]", regex.V1)


def only_in_script(data: bytes, scripts: tuple[str, ...]) -> bool:
    """Return whether these bytes can only ever be part of a text that holds the script.

    True if they hold a whole character of it, or if they end with the beginning of a character and every assigned
    character that begins so belongs to the script. Continuation bytes alone (the end of some character) do not count.
    """
    if has_script(data.decode("utf-8", errors="ignore"), scripts):
        return True
    return _prefix_in_script(_unfinished(data), scripts)


def _unfinished(data: bytes) -> bytes:
    """The beginning of a character at the end of `data`, if there is one."""
    for length in range(1, min(3, len(data)) + 1):
        lead = data[-length]
        if lead & 0xC0 == 0x80:
            continue
        wanted = 2 if 0xC2 <= lead <= 0xDF else 3 if 0xE0 <= lead <= 0xEF else 4 if 0xF0 <= lead <= 0xF4 else 0
        return data[-length:] if wanted > length else b""
    return b""


@lru_cache(maxsize=4096)
def _prefix_in_script(prefix: bytes, scripts: tuple[str, ...]) -> bool:
    if not prefix:
        return False
    wanted = 2 if prefix[0] < 0xE0 else 3 if prefix[0] < 0xF0 else 4
    if wanted - len(prefix) > 2:
        return False  # an F0..F4 alone begins characters of many scripts
    inside = False
    assigned = regex.compile(r"\P{Cn}")
    tails = [b""]
    for _ in range(wanted - len(prefix)):
        tails = [tail + bytes([byte]) for tail in tails for byte in range(0x80, 0xC0)]
    for tail in tails:
        character = (prefix + tail).decode("utf-8", errors="ignore")
        if character and assigned.match(character):
            if not has_script(character, scripts):
                return False
            inside = True
    return inside
