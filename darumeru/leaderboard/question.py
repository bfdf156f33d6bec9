"""What a reader must see of a sample at once: the question in its prompt, and what each log-probability is of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase, digits
from typing import Any

from darumeru.record.sample import Asked, Sample

_TURNS = (
    ("<|im_start|>user\n", ("<|im_end|>",)),
    ("<|start_header_id|>user<|end_header_id|>", ("<|eot_id|>",)),
    ("<start_of_turn>user\n", ("<end_of_turn>",)),
    ("<|turn>user\n", ("<turn|>",)),
    ("[INST]", ("[/INST]",)),
    ("<|user|>", ("<|end|>", "</s>", "<|assistant|>")),
)
"""What opens a user's turn in the chat templates of widespread models, and what may close it."""
_PLAIN = re.compile(r"(?:^|\n)Query: ")
_ALPHABETS = (ascii_uppercase, digits[1:], digits, "АБВГДЕЖЗИКЛМНОПРСТУФХЦЧШЩЭЮЯ")

Options = list[tuple[str, str | None]]
"""For each log-probability its label and the text that it stands for; None where the label is all there is."""


def question_in(prompt: str) -> tuple[int, int]:
    """Return where the last user turn of a prompt begins and ends, in characters; the whole prompt if no turn is known."""
    opening, closings = max(_TURNS, key=lambda turn: prompt.rfind(turn[0]))
    if (at := prompt.rfind(opening)) >= 0:
        start = at + len(opening)
        ends = [end for closing in closings if (end := prompt.find(closing, start)) >= 0]
        return _stripped(prompt, start, min(ends, default=len(prompt)))
    if turns := list(_PLAIN.finditer(prompt)):
        start = turns[-1].end()
        end = prompt.rfind("\nResponse:", start)
        return _stripped(prompt, start, end if end >= 0 else len(prompt))
    return _stripped(prompt, 0, len(prompt))


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end]
    first = start + len(part) - len(part.lstrip())
    return first, max(first, start + len(part.rstrip()))


def labels_of(samples: Sequence[Sample]) -> list[str] | None:
    """Return the labels that a task's log-probabilities are of, in their order; None where the samples do not tell.

    A record names the label that was chosen, which is that of the highest log-probability; one that was never chosen is told by
    its place in an alphabet, or by being the only one left.
    """
    found: dict[int, str] = {}
    width = max((len(s.requests[0].answer.logprobs) for s in samples if s.requests), default=0)
    seen = {str(g) for s in samples for g in (s.gold, s.pred) if isinstance(g, str | int) and s.pred is not None}
    for sample in samples:
        logs = sample.requests[0].answer.logprobs if sample.requests else []
        if len(logs) != width or sample.pred is None or sample.repeats or sample.requests[0].answer.unfinished:
            continue
        if found.setdefault(logs.index(max(logs)), sample.pred) != sample.pred:
            return None
    if width < 2 or not found or len(set(found.values())) < len(found):
        return None
    for alphabet in _ALPHABETS:
        if width <= len(alphabet) and all(alphabet[i] == label for i, label in found.items()):
            return list(alphabet[:width])
    left, places = seen - set(found.values()), set(range(width)) - set(found)
    if len(left) == len(places) == 1:
        found[places.pop()] = left.pop()
    return [found[i] for i in range(width)] if len(found) == width else None


def options_of(sample: Sample, asked: Asked, question: str, labels: Sequence[str] | None) -> Options:
    """Return what each log-probability of an answer is of; empty where it has fewer than two or that is not known.

    Texts are lines of the question that begin with a label ("A. …"), else a list in the row with as many texts, such as the
    sentences of a ranking.

    Args:
        sample: the document.
        asked: one of its requests.
        question: of the request.
        labels: of the task (`labels_of`).
    """
    width = len(asked.answer.logprobs)
    if width < 2:
        return []
    given = sample.extra.get("options")
    if isinstance(given, list) and len(given) == width:
        return [(str(text).strip(), None) for text in given]
    if labels is not None and len(labels) == width:
        texts: list[str | None] = _lines(question, labels) or _listed(sample.doc, width) or [None] * width
        return list(zip(labels, texts, strict=True))
    for alphabet in _ALPHABETS:
        if width <= len(alphabet) and sample.pred is not None and (lines := _lines(question, alphabet[:width])):
            return list(zip(alphabet, lines, strict=False))
    listed = _listed(sample.doc, width)
    return [(str(i), text) for i, text in enumerate(listed)] if listed else []


def _lines(question: str, labels: Sequence[str]) -> list[str | None] | None:
    """Return the text behind each label at the beginning of a line, the last such line; None unless all have one."""
    found = [re.findall(rf"^[ \t(]*{re.escape(label)}[.):][ \t]*(\S.*)$", question, re.MULTILINE) for label in labels]
    return [lines[-1].strip() for lines in found] if all(found) else None


def _listed(row: Any, width: int) -> list[str | None] | None:
    """Return the first list of so many texts in a row, or in what it holds."""
    if isinstance(row, dict):
        return next((texts for value in row.values() if (texts := _listed(value, width))), None)
    if isinstance(row, list) and len(row) == width and all(isinstance(text, str) for text in row):
        return list(row)
    return None
