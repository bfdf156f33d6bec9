"""The unified state exam in Russian: one JSON file a variant, or JSON lines."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.data.items import Item, hold_out, splits_of
from darumeru.data.raw import LINES, ImportOptions, Raw, Splits, files_of, log_skipped, records, squeezed, stem
from darumeru.errors import UserError
from darumeru.files import read_json

_HOW = {
    "text": "Напишите только само слово или сами слова: строчными буквами, слитно, без пробелов и знаков препинания.",
    "multiple_choice": "Напишите только номера, по возрастанию, через запятую без пробелов.",
    "matching": "Напишите только цифры в порядке букв, через запятую без пробелов.",
}
_ON_A_TEXT = ("1", "3", "22", "23")
"""Items whose options are statements about a text."""


class _InexpressibleError(Exception):
    """An item that the schema has no way to hold."""


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `use`; items whose key the schema cannot hold are left out, and the variants' `max_points` follow."""
    variants: dict[str, list[Item]] = {}
    reasons = []
    for raw in _use_records(source):
        try:
            item = _use_item(raw)
        except _InexpressibleError as reason:
            reasons.append(str(reason))
            continue
        variants.setdefault(str(item.meta["variant"]), []).append(item)
    log_skipped(source, reasons)
    test, prompt = _use_examples(source, variants, options.fewshot)
    points: dict[str, int] = {}
    for item in test:  # an item that was left out must not lower the grade of its variant
        points[item.meta["variant"]] = points.get(item.meta["variant"], 0) + item.meta["score"]
    splits = splits_of("use", test, prompt)
    for row in splits["use", "test"]:
        row["meta"]["max_points"] = points[row["meta"]["variant"]]
    return splits


def _use_records(source: Path) -> Iterator[Raw]:
    """The items of JSON lines, or of one JSON file a variant with `{"tasks": […]}`; a JSON file's line is the item's number."""
    for file in files_of(source, (*LINES, ".json")):
        if file.suffix != ".json":
            yield from records(file)
            continue
        content = read_json(file)
        tasks = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise UserError(f"'{file}' is no variant of the exam: it needs an object with a list 'tasks' of objects.")
        for number, task in enumerate(tasks, start=1):
            yield Raw(file, number, {"variant": stem(file), **task})


def _use_item(raw: Raw) -> Item:
    """One item of the exam.

    Raises:
        _InexpressibleError: its key is no word, no list of numbers and no matching, or there are several different ones.
        UserError: a field is missing.
    """
    number = str(raw.value("id")).strip()
    question = raw.value("question.type")
    if question not in ("text", "choice", "multiple_choice", "matching"):
        raise _InexpressibleError(f"an answer of type '{question}' has no key")
    body = raw.text("text")
    choices = [_Option.of(raw, "question.choices", c) for c in raw.row["question"].get("choices") or []]
    left = [_Option.of(raw, "question.left", c) for c in raw.row["question"].get("left") or []]
    body, column = _cut_out(body, [o for o in left if o.text])
    body, options = _cut_out(body, [o for o in choices if o.text])
    task, text = _cut_task(body)
    kind, gold = _use_key(raw, number, question, choices, left)
    inputs = {"task": task, "text": text, "choices": options, "additional_text": column}
    content = "Задание экзамена по русскому языку.\n\n{task}"
    for name, title in (("text", ""), ("additional_text", "Первый столбец:\n"), ("choices", "Варианты:\n")):
        content += f"\n\n{title}{{{name}}}" if inputs[name] else ""
    content += "\n\n" + _HOW[kind if kind in _HOW else "multiple_choice"]
    score = raw.choice("score", {str(points): points for points in range(1, 10)})
    meta = {"id_task": number, "variant": raw.text("variant"), "score": score, "type": kind}
    answer = gold.split(",")[0] if kind == "text" else gold
    return Item(content, inputs, gold, answer, meta, group=squeezed(raw.text("text")))


@dataclass(frozen=True)
class _Option:
    """An option of an item: its number (or letter) and its text without it."""

    id: str
    text: str
    link: bool
    """Whether it is a sentence's number in the text."""

    @classmethod
    def of(cls, raw: Raw, name: str, value: Any) -> _Option:
        if not isinstance(value, dict) or "id" not in value:
            raise raw.fault(name, f"an option must be an object with an 'id', this is {value!r}")
        mark = str(value["id"])
        text = _tidy(str(value.get("text") or ""))
        return cls(mark, re.sub(rf"^{re.escape(mark)}\s*[).]?\s*", "", text), "link" in value)


def _use_key(
    raw: Raw, number: str, question: str, choices: Sequence[_Option], left: Sequence[_Option]
) -> tuple[str, str]:
    """The item's type and gold answer."""
    solution = raw.value("solution")
    key = solution.get("correct_variants", solution.get("correct")) if isinstance(solution, dict) else None
    if not key:
        raise raw.fault("solution", "needs 'correct' or 'correct_variants'")
    if question == "text":
        words = [re.sub(r"[\d\W_]+", "", str(word).lower()) for word in (key if isinstance(key, list) else [key])]
        if not all(words):
            raise _InexpressibleError("its key holds no letters")
        return "text", ",".join(dict.fromkeys(words))
    ids = {option.id for option in choices}
    if question == "matching":
        if not isinstance(key, dict) or {str(k) for k in key} != {option.id for option in left}:
            raise _InexpressibleError("its key does not give a number for each letter")
        marks = [str(key[option.id]) for option in left]
        if not ids.issuperset(marks):
            raise _InexpressibleError("its key names options that it does not have")
        return "matching", ",".join(marks)
    variants = key if isinstance(key, list) and key and isinstance(key[0], list) else [key]
    sets = {frozenset(map(str, variant)) for variant in variants}
    if len(sets) != 1:
        raise _InexpressibleError("it has several keys that are different sets of numbers")
    marks = sorted(next(iter(sets)), key=lambda mark: (len(mark), mark))
    if not ids.issuperset(marks):
        raise _InexpressibleError("its key names options that it does not have")
    if any(option.text for option in choices):
        kind = "based_on_text" if number in _ON_A_TEXT else "independent_options"
    else:
        kind = "based_on_text" if any(option.link for option in choices) else "options_within_text"
    return f"multiple_choice_{kind}", ",".join(marks)


def _tidy(text: str) -> str:
    """Plain spaces, no soft hyphens and marks, no space at the ends of lines."""
    text = text.translate({0xA0: " ", 0xAD: None, 0xFEFF: None})
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]*\n[ \t]*", "\n", re.sub(r"[ \t]+", " ", text))).strip()


def _cut_out(body: str, options: Sequence[_Option]) -> tuple[str, str]:
    """The text without the options where it repeats them one after another, and the options, one a line."""
    if not options:
        return body, ""
    parts = [
        rf"(?:{re.escape(option.id)}\s*[).]?)?\s*" + r"\s+".join(re.escape(word) for word in option.text.split())
        for option in options
    ]
    match = re.search(r"[\s;.,]*".join(parts) + r"(?![^\W\d_])", body)  # not a word's beginning
    if match:
        body = f"{body[: match.start()]}\n{body[match.end() :]}"
    # A column of a matching brings its own letters («А) …»), which the key's Latin ones are not.
    lines = [o.text if re.match(r"[А-Я]\)", o.text) else f"{o.id}) {o.text}" for o in options]
    return body, "\n".join(lines)


def _cut_task(body: str) -> tuple[str, str]:
    """What is to be done, and the text after it; no word is lost, wherever the cut falls."""
    match = re.search(r"(?<=[.!?:])(?=\s*\(?1\))|(?<=[.!?:])\s*[\n\xa0]|\n", body.strip())
    cut = match.start() if match else len(body)
    return _tidy(body.strip()[:cut]), _tidy(body.strip()[cut:])


def _use_examples(source: Path, variants: dict[str, list[Item]], count: int) -> tuple[list[Item], list[Item]]:
    """Test items and examples; the examples' whole variant is kept out of the test, and so are items that repeat them.

    Examples are of different types: the shortest of each type, then the shortest left; they come from the variant with
    the most types, of such the one where they are shortest in all, so that a prompt can hold them.

    Raises:
        UserError: there are too few variants.
    """
    seen: dict[Hashable, set[str]] = {}
    for name, items in variants.items():
        for item in items:
            seen.setdefault(item.group, set()).add(name)
    offers = []
    for name, items in variants.items() if count and len(variants) > 1 else ():
        alone = sorted((item for item in items if len(seen[item.group]) == 1), key=_length)
        firsts = {item.meta["type"]: item for item in reversed(alone)}
        ordered = [*firsts.values(), *(item for item in alone if item not in firsts.values())][:count]
        if len(ordered) == count:
            offers.append((-len(firsts), sum(map(_length, ordered)), name, ordered))
    if offers:
        *_, name, chosen = min(offers, key=lambda offer: offer[:3])
        test = [item for other, items in variants.items() if other != name for item in items]
        return test, sorted(chosen, key=lambda item: int(item.meta["id_task"]))
    everything = [item for items in variants.values() for item in items]
    return (everything, []) if not count else hold_out(source, everything, count)


def _length(item: Item) -> int:
    return sum(map(len, item.inputs.values()))
