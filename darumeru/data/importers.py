"""Public raw files → data sets of a bundle, in the schemas that the tasks read.

Each kind of `KINDS` is a function from the files of a source to splits of rows. The instructions are this project's own.
"""

from __future__ import annotations

import csv
import logging
import random
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darumeru.data.bundle import Row, read_rows
from darumeru.errors import UserError, unknown
from darumeru.files import fingerprint, read_json, read_jsonl, write_jsonl

_log = logging.getLogger(__name__)

Splits = dict[tuple[str, str], list[Row]]
"""(data set, split) → rows."""


@dataclass(frozen=True)
class Choice:
    """What a user can choose about an import."""

    lang: str = "ru"
    rows: int = 500
    seed: int = 0
    fewshot: int = 5


def import_data(
    kind: str, source: Path, output: Path, *, lang: str = "ru", rows: int = 500, seed: int = 0, fewshot: int = 5
) -> list[Path]:
    """Write the data set that raw files hold into a bundle folder.

    Items that the bundle's schema cannot express are left out; how many is logged as a warning.

    Args:
        kind: a name of `KINDS`.
        source: a file, or a folder whose files are searched.
        output: the bundle's folder; it may hold other data sets.
        lang: `copy`: the language of the texts, a code of two or three letters.
        rows: `copy`: how many rows of each of its two data sets.
        seed: `copy`: of the choice of texts.
        fewshot: rows that become few-shot examples where the source has none of its own.

    Returns:
        The files of the splits.

    Raises:
        UserError: an unknown kind, a source that is not of that kind, or a split that is there with other rows.
    """
    if kind not in KINDS:
        raise unknown("kind of data", kind, KINDS)
    if not source.exists():
        raise UserError(f"Source '{source}' does not exist.")
    if output.exists() and not output.is_dir():
        raise UserError(f"'{output}' is a file; --output must be the folder of a bundle.")
    if not re.fullmatch(r"[a-z]{2,3}", lang):
        raise UserError(f"Language '{lang}' is no code of two or three small letters (ru, en, kk).")
    if rows < 1 or fewshot < 0:
        raise UserError(
            f"{rows} rows with {fewshot} examples cannot be made: at least 1 row and 0 examples are needed."
        )
    splits = KINDS[kind](source, Choice(lang, rows, seed, fewshot))
    targets = [(_target(output, dataset, split, found), found) for (dataset, split), found in splits.items()]
    for file, found in targets:
        if not file.exists():
            write_jsonl(file, found)
    return [file for file, _ in targets]


def _target(output: Path, dataset: str, split: str, rows: Sequence[Row]) -> Path:
    """Where a split goes.

    Raises:
        UserError: it is there already, with other rows.
    """
    folder = output / dataset
    for suffix in (".jsonl", ".jsonl.gz", ".parquet"):
        file = folder / f"{split}{suffix}"
        if file.exists() and fingerprint(read_rows(file)) != fingerprint(rows):
            raise UserError(f"'{file}' is there already and holds other rows. Remove it, or choose another --output.")
        if file.exists():
            return file
    return folder / f"{split}.jsonl"


# -- raw files --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Raw:
    """A record of a raw file, and where it stands."""

    file: Path
    line: int
    row: Row

    def fault(self, name: str, message: str) -> UserError:
        """What is wrong with a field."""
        return UserError(f"'{self.file}', line {self.line}, field '{name}': {message}.")

    def value(self, name: str) -> Any:
        """A field that must be there; `a.b` is field b of object a."""
        value: Any = self.row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
            if value is None:
                raise self.fault(name, "is missing")
        return value

    def text(self, name: str) -> str:
        """A field that must hold text."""
        value = self.value(name)
        if not isinstance(value, str) or not value.strip():
            raise self.fault(name, f"must be a text, this is {value!r}")
        return value.strip()

    def choice(self, name: str, names: dict[str, Any]) -> Any:
        """What a field's value stands for."""
        value = str(self.value(name)).strip()
        if value not in names:
            raise self.fault(name, f"must be one of {', '.join(names)}, this is '{value}'")
        return names[value]


_TABLES = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".jsonl.gz")


def _files(source: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a source with one of these suffixes, in order of their paths.

    Raises:
        UserError: there is none.
    """
    files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
    found = [file for file in files if file.name.endswith(tuple(suffixes))]
    if not found:
        raise UserError(f"'{source}' has no file of the kind {', '.join('*' + s for s in suffixes)}.")
    return found


def _stem(file: Path) -> str:
    return file.name.split(".")[0]


def _csv_lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    delimiter = _TABLES[file.suffix]
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(
                handle, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
            )
            for cells in reader:
                if cells:
                    yield reader.line_num, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' cannot be read as a UTF-8 {file.suffix[1:].upper()} table ({error}).") from None


def _records(file: Path) -> Iterator[Raw]:
    """The records of JSON lines, or of a table whose first line names its columns."""
    if file.suffix in _TABLES:
        header: list[str] | None = None
        for line, cells in _csv_lines(file):
            if header is None:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                raise UserError(f"'{file}', line {line}: {len(cells)} columns, but the first line names {len(header)}.")
            else:
                yield Raw(file, line, dict(zip(header, cells, strict=True)))
        return
    for line, row in read_jsonl(file):
        if not isinstance(row, dict):
            raise UserError(f"'{file}', line {line}: a record must be a JSON object, this is a {type(row).__name__}.")
        yield Raw(file, line, row)


def _skipped(source: Path, reasons: Iterable[str]) -> None:
    """Say how many items were left out, and why."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    for reason, count in counts.items():
        _log.warning("%s: %d item%s left out: %s.", source, count, "s"[: count != 1], reason)


# -- rows with a conversation -----------------------------------------------------------------------------------------


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
        """The row with this number in its split."""
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


def _literal(text: str) -> str:
    """A template that gives `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def _hold_out(source: Path, items: Sequence[Item], count: int) -> tuple[list[Item], list[Item]]:
    """Test items and `count` examples that share no text with them.

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
        _skipped(source, ["it shares its text with a few-shot example"] * lost)
    left = [item for key, members in groups.items() if key not in chosen for item in members]
    return left, [groups[key][0] for key in chosen]


def _splits(dataset: str, test: Sequence[Item], prompt: Sequence[Item]) -> Splits:
    return {
        (dataset, "test"): [item.row(number, example=False) for number, item in enumerate(test)],
        (dataset, "prompt"): [item.row(number, example=True) for number, item in enumerate(prompt)],
    }


def _test_and_train(source: Path) -> tuple[list[Path], list[Path]]:
    """The files that hold test items and those whose items may serve as examples; a single file holds test items."""
    files = _files(source, _LINES)
    if source.is_file():
        return files, []
    train = [file for file in files if _stem(file) in ("train", "sample")]
    test = [file for file in files if _stem(file) in ("val", "validation", "dev")]
    if not test:
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"'{source}' has no val.jsonl, validation.jsonl or dev.jsonl; it has: {names}. Name one file of it."
        )
    return test, train


def _with_examples(source: Path, dataset: str, choice: Choice, make: Callable[[Raw, int], Item]) -> Splits:
    test_files, train_files = _test_and_train(source)
    test, train = (
        [make(raw, number) for number, raw in enumerate(raw for file in files for raw in _records(file))]
        for files in (test_files, train_files)
    )
    texts = {item.group for item in test}
    train = [item for item in train if item.group not in texts][: choice.fewshot]
    if len(train) < choice.fewshot:
        test, train = _hold_out(source, test, choice.fewshot)
    return _splits(dataset, test, train)


# -- rucola -----------------------------------------------------------------------------------------------------------

_RUCOLA_SPLITS = {
    "train": "train",
    "in_domain_train": "train",
    "in_domain_dev": "validation",
    "out_of_domain_dev": "validation",
    "validation": "validation",
}


def _rucola(source: Path, choice: Choice) -> Splits:
    files = [file for file in _files(source, (*_LINES, ".csv")) if _stem(file) in _RUCOLA_SPLITS]
    if not files:
        names = ", ".join(_RUCOLA_SPLITS)
        raise UserError(f"'{source}' has no file of RuCoLA with labels; their names begin with: {names}.")
    seen: dict[str, Path] = {}
    splits: Splits = {}
    for file in files:
        if (other := seen.setdefault(_stem(file), file)) != file:
            raise UserError(f"'{other}' and '{file}' are the same part of RuCoLA; give only one of them.")
        rows = splits.setdefault(("rucola", _RUCOLA_SPLITS[_stem(file)]), [])
        for raw in _records(file):
            rows.append(
                {
                    "id": len(rows),
                    "sentence": raw.text("sentence"),
                    "label": raw.choice("acceptable", {"0": 0, "1": 1}),
                    "error_type": str(raw.row.get("error_type", "0")),
                    "detailed_source": str(raw.row.get("detailed_source", "")),
                    "part": _stem(file),
                }
            )
    _warn_alone(source, splits, "rucola", ("validation", "train"))
    return splits


def _warn_alone(source: Path, splits: Splits, dataset: str, needed: Sequence[str]) -> None:
    for split in needed:
        if (dataset, split) not in splits:
            _log.warning(
                "%s: nothing for split '%s'; data set '%s' is not complete without it.", source, split, dataset
            )


# -- mmlu -------------------------------------------------------------------------------------------------------------

_ANSWERS = {"A": 0, "B": 1, "C": 2, "D": 3}
_MMLU_CSV = re.compile(r"(?P<subject>.+)_(?P<split>test|dev)\.csv")


def _mmlu(source: Path, choice: Choice) -> Splits:
    """English only: there are no Russian fields, so that `mmlu_ru` cannot run on it."""
    splits: Splits = {}
    for file in _files(source, (*_LINES, ".csv")):
        if match := _MMLU_CSV.fullmatch(file.name):
            splits.setdefault(("mmlu_nlpcoreteam", match["split"]), []).extend(
                _mmlu_row(raw, match["subject"]) for raw in _mmlu_table(file)
            )
        elif file.suffix != ".csv" and _stem(file) in ("test", "dev"):
            splits.setdefault(("mmlu_nlpcoreteam", _stem(file)), []).extend(
                _mmlu_row(raw, raw.text("subject")) for raw in _records(file)
            )
    if not splits:
        raise UserError(
            f"'{source}' has no file of MMLU: <subject>_test.csv, <subject>_dev.csv, test.jsonl or dev.jsonl."
        )
    _warn_alone(source, splits, "mmlu_nlpcoreteam", ("test", "dev"))
    return splits


def _mmlu_table(file: Path) -> Iterator[Raw]:
    """MMLU's own tables have no header: question, four options, letter."""
    columns = ("question", "A", "B", "C", "D", "answer")
    for line, cells in _csv_lines(file):
        if len(cells) != len(columns):
            raise UserError(
                f"'{file}', line {line}: {len(cells)} columns, MMLU has {len(columns)}: {', '.join(columns)}."
            )
        yield Raw(file, line, dict(zip(columns, cells, strict=True)))


def _mmlu_row(raw: Raw, subject: str) -> Row:
    return {
        "subject": subject.strip().replace(" ", "_"),
        "question_en": raw.text("question"),
        "choices_en": [str(raw.value(letter)).strip() for letter in _ANSWERS],
        "answer": raw.choice("answer", {**_ANSWERS, **{str(i): i for i in _ANSWERS.values()}}),
    }


# -- parus and rwsd ---------------------------------------------------------------------------------------------------

_PARUS = {
    "cause": (
        "Ситуация: {premise}\nЧто из этого вероятнее всего к ней привело?\n1. {choice1}\n2. {choice2}\n"
        "Назовите номер ответа, 1 или 2, и больше ничего.",
        "Произошло вот что: {premise}\nОдно из двух предложений объясняет почему.\n1. {choice1}\n2. {choice2}\n"
        "Какое? Напишите одну цифру: 1 или 2.",
    ),
    "effect": (
        "Ситуация: {premise}\nЧто из этого вероятнее всего случилось вследствие неё?\n1. {choice1}\n2. {choice2}\n"
        "Назовите номер ответа, 1 или 2, и больше ничего.",
        "Произошло вот что: {premise}\nОдно из двух предложений говорит, что было дальше из-за этого.\n"
        "1. {choice1}\n2. {choice2}\nКакое? Напишите одну цифру: 1 или 2.",
    ),
}


def _parus(source: Path, choice: Choice) -> Splits:
    def make(raw: Raw, number: int) -> Item:
        wordings = raw.choice("question", dict(_PARUS))
        gold = raw.choice("label", {"0": "1", "1": "2"})
        inputs = {name: raw.text(name) for name in ("premise", "choice1", "choice2")}
        meta = {"task": raw.text("question"), "idx": raw.row.get("idx")}
        return Item(wordings[number % 2], inputs, gold, gold, meta, group=inputs["premise"])

    return _with_examples(source, "parus", choice, make)


_RWSD = (
    "Текст: {text}\nСловами «{span2_text}» сказано о том же, что названо «{span1_text}»?\n"
    "Ответьте одним словом, Да или Нет.",
    "Прочитайте текст.\n{text}\nВерно ли, что местоимение во фразе «{span2_text}» указывает на «{span1_text}»? "
    "Напишите только Да или Нет.",
)


def _rwsd(source: Path, choice: Choice) -> Splits:
    labels = {"True": "Да", "true": "Да", "1": "Да", "False": "Нет", "false": "Нет", "0": "Нет"}

    def make(raw: Raw, number: int) -> Item:
        gold = raw.choice("label", labels)
        spans = {name: raw.text(f"target.{name}") for name in ("span1_text", "span2_text")}
        text = raw.text("text")
        return Item(_RWSD[number % 2], {"text": text, **spans}, gold, gold, {"idx": raw.row.get("idx")}, group=text)

    return _with_examples(source, "rwsd", choice, make)


# -- use --------------------------------------------------------------------------------------------------------------

_HOW = {
    "text": "Напишите только само слово или сами слова: строчными буквами, слитно, без пробелов и знаков препинания.",
    "multiple_choice": "Напишите только номера, по возрастанию, через запятую без пробелов.",
    "matching": "Напишите только цифры в порядке букв, через запятую без пробелов.",
}
_ON_A_TEXT = ("1", "3", "22", "23")
"""Items whose options are statements about a text."""


class _InexpressibleError(Exception):
    """An item that the schema has no way to hold."""


def _use(source: Path, choice: Choice) -> Splits:
    variants: dict[str, list[Item]] = {}
    reasons = []
    for raw in _use_records(source):
        try:
            item = _use_item(raw)
        except _InexpressibleError as reason:
            reasons.append(str(reason))
            continue
        variants.setdefault(str(item.meta["variant"]), []).append(item)
    _skipped(source, reasons)
    test, prompt = _use_examples(source, variants, choice.fewshot)
    points: dict[str, int] = {}
    for item in test:  # an item that was left out must not lower the grade of its variant
        points[item.meta["variant"]] = points.get(item.meta["variant"], 0) + item.meta["score"]
    splits = _splits("use", test, prompt)
    for row in splits["use", "test"]:
        row["meta"]["max_points"] = points[row["meta"]["variant"]]
    return splits


def _use_records(source: Path) -> Iterator[Raw]:
    """The items of JSON lines, or of one JSON file a variant with `{"tasks": […]}`; a JSON file's line is the item's number."""
    for file in _files(source, (*_LINES, ".json")):
        if file.suffix != ".json":
            yield from _records(file)
            continue
        content = read_json(file)
        tasks = content.get("tasks") if isinstance(content, dict) else None
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise UserError(f"'{file}' is no variant of the exam: it needs an object with a list 'tasks' of objects.")
        for number, task in enumerate(tasks, start=1):
            yield Raw(file, number, {"variant": _stem(file), **task})


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
    return Item(content, inputs, gold, answer, meta, group=_squeeze(raw.text("text")))


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
    return (everything, []) if not count else _hold_out(source, everything, count)


def _length(item: Item) -> int:
    return sum(map(len, item.inputs.values()))


# -- multiq -----------------------------------------------------------------------------------------------------------

_ONE_TEXT = (
    "Текст: {text}\n\nВопрос: {question}\nОтветьте коротко, словами из текста, как они в нём стоят, без пояснений.",
    "Найдите в тексте ответ на вопрос «{question}»\n\n{text}\n\n"
    "Выпишите только сам ответ, слово или несколько слов подряд.",
)
_TWO_TEXTS = (
    "Первый текст: {support_text}\n\nВторой текст: {text}\n\nВопрос: {question}\n"
    "Чтобы ответить, нужны оба текста. Выпишите ответ из второго, без пояснений.",
)


def _multiq(source: Path, choice: Choice) -> Splits:
    items, reasons = [], []
    for number, raw in enumerate(_qa_records(source)):
        if not raw.row.get("answers") and raw.row.get("is_impossible"):
            reasons.append("it has no answer in its text")
            continue
        items.append(_two_texts(raw) if "support_text" in raw.row else _one_text(raw, number))
    _skipped(source, reasons)
    return _splits("multiq", *_hold_out(source, items, choice.fewshot))


def _qa_records(source: Path) -> Iterator[Raw]:
    """The questions of JSON lines, or of SQuAD's JSON; in the latter a line is the question's number."""
    for file in _files(source, (*_LINES, ".json")):
        if file.suffix != ".json":
            yield from _records(file)
            continue
        content = read_json(file)
        try:
            flat = [
                {**question, "context": paragraph["context"], "title": article.get("title", "")}
                for article in content["data"]
                for paragraph in article["paragraphs"]
                for question in paragraph["qas"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"'{file}' is not of SQuAD's form, data → paragraphs → context, qas ({error!r}).") from None
        for number, row in enumerate(flat, start=1):
            yield Raw(file, number, row)


def _one_text(raw: Raw, number: int) -> Item:
    context = raw.text("context")
    # A byte-order mark inside a file is no part of the text, but the offsets count it.
    shift = len(raw.row["context"]) - len(raw.row["context"].lstrip("\ufeff \n\t"))
    text = context.lstrip("\ufeff \n\t")
    found = [(answer.get("text"), answer.get("answer_start", -1)) for answer in _objects(raw, "answers")]
    outputs = _segments(raw, "answers", text, [(segment, offset - shift) for segment, offset in found])
    inputs = {"question": raw.text("question"), "support_text": "", "text": text}
    meta = {"source_id": str(raw.row.get("id", number))}
    answer = _literal(outputs[0]["segment"])
    return Item(_ONE_TEXT[number % 2], inputs, outputs, answer, meta, group=text)


def _two_texts(raw: Raw) -> Item:
    text = raw.text("main_text")
    found = [(answer.get("segment"), answer.get("offset", -1)) for answer in _objects(raw, "main_answers")]
    outputs = _segments(raw, "main_answers", text, found)
    inputs = {"question": raw.text("question"), "support_text": raw.text("support_text"), "text": text}
    meta = {"bridge_answers": raw.row.get("bridge_answers", [])}
    return Item(_TWO_TEXTS[0], inputs, outputs, _literal(outputs[0]["segment"]), meta, group=text)


def _objects(raw: Raw, name: str) -> list[dict[str, Any]]:
    value = raw.value(name)
    if not isinstance(value, list) or not value or not all(isinstance(answer, dict) for answer in value):
        raise raw.fault(name, f"must be a list of one or more objects, this is {value!r}")
    return value


def _segments(raw: Raw, name: str, text: str, answers: Sequence[tuple[Any, Any]]) -> list[Row]:
    """The gold answers with their place in the text; where the stated place is wrong, the first right one."""
    outputs: dict[str, Row] = {}
    for segment, offset in answers:
        if not isinstance(segment, str) or not segment.strip():
            raise raw.fault(name, f"an answer must be a text, this is {segment!r}")
        if not isinstance(offset, int) or text[max(0, offset) : max(0, offset) + len(segment)] != segment:
            offset = text.find(segment)
        if offset < 0:
            raise raw.fault(name, f"the answer '{segment}' is not in the text")
        row = {"label": "answer", "length": len(segment), "offset": offset, "segment": segment}
        outputs.setdefault(segment, row)
    return list(outputs.values())


# -- flores -----------------------------------------------------------------------------------------------------------

_FLORES = (
    "Переведи с {input} языка на {output}:\n\n{input_text}\n\nНапиши один лишь перевод.",
    "Ниже предложение, его надо перевести с {input} языка на {output} точно и естественно, ничего не поясняя.\n\n"
    "{input_text}",
)


def _flores(source: Path, choice: Choice) -> Splits:
    items: list[Item] = []
    for raw in (raw for file in _files(source, (*_LINES, ".tsv")) for raw in _records(file)):
        inputs = {lang: raw.text(lang) for lang in ("ru", "en")}
        meta: dict[str, Any] = {name: raw.row[name] for name in ("line", "doc") if name in raw.row}
        item = Item(_FLORES[len(items) % 2], inputs, "", "{translation}", meta, group=inputs["en"], prefix="Перевод:")
        items.append(item)
    return _splits("flores", *_hold_out(source, items, choice.fewshot))


# -- copy -------------------------------------------------------------------------------------------------------------

_COPY_RU = (
    "Перепиши этот текст без изменений, знак в знак, и ничего к нему не добавляй.\n\n{text}",
    "Вот текст:\n\n{text}\n\nНапиши его ещё раз точно таким же. Больше ничего писать не надо.",
)
_COPY_EN = (
    "Copy this text without any change, character by character, and add nothing to it.\n\n{text}",
    "Here is a text:\n\n{text}\n\nWrite it once more, exactly as it is. Write nothing else.",
)
_SENTENCE_WORDS = range(8, 41)
_PARAGRAPH_WORDS = range(60, 201)
_SHORTENED = re.compile(
    "[^\\W_]|гг|вв|др|пр|руб|коп|им|ул|стр|см|напр|ок|тыс|млн|млрд|обл|гр|проф|акад|св"
    "|mrs?|ms|dr|st|prof|vs|etc|no|vol|fig|jr|sr|capt|col|gen",
    re.IGNORECASE,
)
"""Words whose full stop ends no sentence: single letters and abbreviations."""
_END = re.compile(r"[.!?…。！？।؟]+[\"»”’')\]]*\s+(?=[\"«“„‘'(\[—–-]*\s*([^\W_]))")
_ENTITY = re.compile(r"&#?\w+;|[\x00-\x08\x0b-\x1f\x7f\ufffd]|https?:")


def _copy(source: Path, choice: Choice) -> Splits:
    sentences = _Reservoir(choice.rows + choice.fewshot, f"{choice.seed}:{choice.lang}:sent")
    paragraphs = _Reservoir(choice.rows + choice.fewshot, f"{choice.seed}:{choice.lang}:para")
    for paragraph in (p for text in _texts(source) for p in paragraphs_of(text)):
        if len(paragraph.split()) in _PARAGRAPH_WORDS and _is_clean(paragraph):
            paragraphs.offer(paragraph)
        for sentence in sentences_of(paragraph):
            if len(sentence.split()) in _SENTENCE_WORDS and _is_clean(sentence):
                sentences.offer(sentence)
    splits: Splits = {}
    kinds = {"sent": ("sentences of 8 to 40 words", sentences), "para": ("paragraphs of 60 to 200 words", paragraphs)}
    wordings = _COPY_RU if choice.lang == "ru" else _COPY_EN
    for name, (what, reservoir) in kinds.items():
        texts = reservoir.shuffled()
        if len(texts) <= choice.fewshot:
            _log.warning("%s: %d %s, too few for cp_%s_%s.", source, len(texts), what, name, choice.lang)
            continue
        if len(texts) < choice.rows + choice.fewshot:
            _log.warning("%s: %d %s instead of %d.", source, len(texts), what, choice.rows + choice.fewshot)
        items = [
            Item(wordings[number % 2], {"text": text}, text, "{text}", prefix="") for number, text in enumerate(texts)
        ]
        splits |= _splits(f"cp_{name}_{choice.lang}", items[choice.fewshot :], items[: choice.fewshot])
    if not splits:
        raise UserError(
            f"'{source}' has too few texts to copy: more than {choice.fewshot} whole sentences of 8 to 40 words, or "
            "paragraphs of 60 to 200, are needed (words are what stands between spaces)."
        )
    return splits


def _texts(source: Path) -> Iterator[str]:
    """The texts of a corpus: of plain text files, and field `text` of JSON lines."""
    for file in _files(source, (*_LINES, ".txt")):
        if file.suffix == ".txt":
            try:
                yield file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise UserError(f"'{file}' is not UTF-8 text ({error}).") from None
        else:
            for raw in _records(file):
                if not isinstance(raw.value("text"), str):
                    raise raw.fault("text", f"must be a text, this is {raw.row['text']!r}")
                yield raw.row["text"]


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a text: what stands between blank lines or, where it has none, between line ends.

    >>> paragraphs_of("Одна строка\\nи её конец.\\n\\nВторой абзац.")
    ['Одна строка и её конец.', 'Второй абзац.']
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "").strip()
    parts = re.split(r"\n\s*\n", text)
    if len(parts) == 1:
        parts = text.split("\n")
    return [squeezed for part in parts if (squeezed := " ".join(part.split()))]


def sentences_of(paragraph: str) -> list[str]:
    """The sentences of a paragraph; no cut after initials and common abbreviations.

    >>> sentences_of("Роман А. С. Иванова вышел в 1900 г. в Москве. Его ждали!")
    ['Роман А. С. Иванова вышел в 1900 г. в Москве.', 'Его ждали!']
    """
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        before = re.search(r"(\w+)\W*$", paragraph[start : match.start()])
        word = before[1] if before else ""
        is_short = match[0].startswith(".") and _SHORTENED.fullmatch(word) is not None
        goes_on = match[1].islower()  # «— Да! — сказал он»
        if not (is_short or goes_on):
            sentences.append(paragraph[start : match.end()].strip())
            start = match.end()
    return [*sentences, paragraph[start:].strip()]


def _is_clean(text: str) -> bool:
    """Whether a text is whole: it begins like a sentence, ends like one, and closes what it opens."""
    begins = text.lstrip("\"«“„‘'(—–- ")[:1]
    return (
        begins.isalnum()
        and not begins.islower()
        and text.rstrip("\"»”’')]")[-1:] in tuple(".!?…。！？।؟")
        and all(text.count(a) == text.count(b) for a, b in ("()", "«»", "[]", "“”"))
        and text.count('"') % 2 == 0
        and not _ENTITY.search(text)
    )


class _Reservoir:
    """A uniform sample of different texts, drawn in one pass (algorithm R), so that a corpus need not fit in memory."""

    def __init__(self, size: int, seed: str) -> None:
        self.size = size
        self.random = random.Random(seed)
        self.kept: list[str] = []
        self.seen: set[int] = set()

    def offer(self, text: str) -> None:
        """Take part in the draw, unless the same text (but for case and spaces) already has."""
        key = int(fingerprint(_squeeze(text))[:16], 16)
        if key in self.seen:
            return
        self.seen.add(key)
        if len(self.kept) < self.size:
            self.kept.append(text)
        elif (place := self.random.randrange(len(self.seen))) < self.size:
            self.kept[place] = text

    def shuffled(self) -> list[str]:
        """The sample in random order."""
        return self.random.sample(self.kept, len(self.kept))


def _squeeze(text: str) -> str:
    return " ".join(text.split()).casefold()


KINDS: dict[str, Callable[[Path, Choice], Splits]] = {
    "rucola": _rucola,
    "mmlu": _mmlu,
    "parus": _parus,
    "rwsd": _rwsd,
    "use": _use,
    "multiq": _multiq,
    "flores": _flores,
    "copy": _copy,
}
"""Kind → how its raw files become rows."""
