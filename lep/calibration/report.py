"""A description of a set of chat examples: lengths, languages, refusals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from lep.tokenizer.scripts import count_script

_REFUSALS = re.compile(
    r"\bя не могу\b|\bне могу (?:помочь|ответить|выполнить|предоставить)\b|\bя не (?:имею|умею)\b"
    r"|\bкак (?:языковая модель|ии|искусственный интеллект)\b|\bизвините, но\b|\bк сожалению, я\b"
    r"|\bi (?:can't|can’t|cannot|am unable|am not able)\b|\bi'm (?:sorry|unable|not able)\b|\bi’m (?:sorry|unable)\b"
    r"|\bas an ai\b|\bas a language model\b",
    re.IGNORECASE,
)
_BEGINNING = 200
"""Characters in which a refusal stands, if it is one."""


def is_refusal(answer: str) -> bool:
    """Return whether an answer begins with one of the usual Russian or English phrases of refusing."""
    return _REFUSALS.search(answer[:_BEGINNING]) is not None


def main_script(text: str) -> str:
    """`Cyrillic`, `Latin` or `other`: where most of a text's letters belong; `none` where it has no letters."""
    letters = sum(map(str.isalpha, text))
    counts = {script: count_script(text, (script,)) for script in ("Cyrillic", "Latin")}
    counts["other"] = letters - sum(counts.values())
    return max(counts, key=lambda script: counts[script]) if letters else "none"


def describe(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Figures of (prompt, answer) pairs: how many, lengths of answers, scripts, refusals, answers in another script."""
    answers = [answer for _, answer in pairs]
    scripts = Counter(map(main_script, answers))
    return {
        "examples": len(pairs),
        "characters": spread([len(answer) for answer in answers]),
        "words": spread([len(answer.split()) for answer in answers]),
        "scripts": {name: round(count / len(pairs), 4) for name, count in scripts.most_common()},
        "other_script_than_prompt": sum(main_script(prompt) != main_script(answer) for prompt, answer in pairs),
        "refusals": sum(map(is_refusal, answers)),
    }


def spread(values: Sequence[int]) -> dict[str, float]:
    """Smallest, median, mean and largest value; empty where there are none."""
    if not values:
        return {}
    mean = round(sum(values) / len(values), 1)
    return {"min": min(values), "median": median(values), "mean": mean, "max": max(values)}
