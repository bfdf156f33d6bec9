"""Questions with a conversation of their own, divided into test rows and few-shot examples that share no text with them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darumeru.data.bundle import Row
from darumeru.data.raw import LINES, ImportOptions, Raw, Splits, files_of, log_skipped, records, stem
from darumeru.errors import UserError


@dataclass(frozen=True)
class Item:
    """A question before it is known whether it becomes a test row or an example."""

    content: str
    """Template of the user's turn."""
    inputs: dict[str, str]
    outputs: Any
    answer: str
    """Template of an example's answer."""
    meta: dict[str, Any] = field(default_factory=dict)
    group: Hashable = None
    """Items of one group share a text, so that none may be an example for another."""
    prefix: str = "Ответ:"
    """How the assistant's turn begins; empty if the model begins it."""

    def row(self, number: int, example: bool) -> Row:
        """Return the row with this number in its split, with its answer where it is an example."""
        messages = [{"role": "user", "content": self.content}]
        if example:
            messages.append({"role": "assistant", "content": f"{self.prefix} {self.answer}".strip()})
        elif self.prefix:
            messages.append({"role": "assistant", "content": self.prefix})
        return {
            "messages": messages,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "meta": {"id": number, **self.meta},
        }


def literal(text: str) -> str:
    """Return the template that gives `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def hold_out(source: Path, items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """Return test items and `count` examples that share no text with them.

    The first items of the smallest groups become examples, and the rest of these groups is dropped: so the examples are of
    different texts and as few items as possible are lost.

    Raises:
        UserError: no item would be left to test.
    """
    groups: dict[Hashable, list[Item]] = {}
    for index, item in enumerate(items):
        groups.setdefault(index if item.group is None else ("", item.group), []).append(item)
    if len(groups) <= count:
        raise UserError(
            f"'{source}' has {len(items)} usable items on {len(groups)} different texts; {count} become few-shot examples, "
            "and nothing would be left to test. Give more data."
        )
    chosen = sorted(groups, key=lambda key: len(groups[key]))[:count]
    lost = sum(len(groups[key]) - 1 for key in chosen)
    if lost:
        log_skipped(source, ["it shares its text with a few-shot example"] * lost)
    left = [item for key, members in groups.items() if key not in chosen for item in members]
    return left, [groups[key][0] for key in chosen]


def splits_of(dataset: str, test: Sequence[Item], prompt: Sequence[Item]) -> Splits:
    """Return the splits `test` and `prompt` of a data set."""
    return {
        (dataset, "test"): [item.row(number, example=False) for number, item in enumerate(test)],
        (dataset, "prompt"): [item.row(number, example=True) for number, item in enumerate(prompt)],
    }


def _test_and_train(source: Path) -> tuple[list[Path], list[Path]]:
    """Return the files that hold test items and those whose items may serve as examples; a single file holds test items."""
    files = files_of(source, LINES)
    if source.is_file():
        return files, []
    train = [file for file in files if stem(file) in ("train", "sample")]
    test = [file for file in files if stem(file) in ("val", "validation", "dev")]
    if not test:
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"'{source}' has no val.jsonl, validation.jsonl or dev.jsonl; it has: {names}. Name one file of it."
        )
    return test, train


def with_examples(source: Path, dataset: str, options: ImportOptions, make: Callable[[Raw, int], Item]) -> Splits:
    """Return the splits of a data set whose source has a part of its own for examples.

    Args:
        source: a folder with `val` and, where there is one, `train`; or one file of test items.
        dataset: the data set's name.
        options: `fewshot` is how many examples are wanted.
        make: makes an item of a record and its number.

    Raises:
        UserError: a record is faulty, or there are too few texts for that many examples.
    """
    test_files, train_files = _test_and_train(source)
    test, train = (
        [make(raw, number) for number, raw in enumerate(raw for file in files for raw in records(file))]
        for files in (test_files, train_files)
    )
    texts = {item.group for item in test}
    train = [item for item in train if item.group not in texts][: options.fewshot]
    if len(train) < options.fewshot:
        test, train = hold_out(source, test, options.fewshot)
    return splits_of(dataset, test, train)
