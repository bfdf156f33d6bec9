"""The built-in data set: each row can be evaluated, gold labels are balanced, nothing stands in it twice."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from darumeru.data.bundle import MINI, FolderBundle, Row, read_rows
from darumeru.task import ChoiceTask, DarumeruTask
from darumeru.task.check import check
from darumeru.task.suite import Catalogue

BUNDLE = FolderBundle(MINI, "mini")
CATALOGUE = Catalogue()
SUITES = CATALOGUE.suites()
TASKS = CATALOGUE.load(CATALOGUE.tasks(), BUNDLE)
DATASETS = BUNDLE.datasets()
OURS = [*SUITES["darumeru"].tasks, *SUITES["darumeru-extended"].tasks]


def rows_of(dataset: str, split: str) -> list[Row]:
    return read_rows(BUNDLE.file(dataset, split))


def splits_of(dataset: str) -> list[str]:
    return sorted(p.name.split(".")[0] for p in (MINI / dataset).iterdir())


def texts(value: Any) -> Iterator[str]:
    """All texts of a row."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def squeezed(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold().replace("ё", "е")))


def test_every_row_passes_every_check() -> None:
    assert [str(fault) for fault in check(BUNDLE, TASKS)] == []
    assert len(OURS) == 23
    assert {TASKS[name].dataset for name in OURS} == set(DATASETS)


@pytest.mark.parametrize("name", OURS)
def test_enough_rows_to_test_and_to_show(name: str) -> None:
    task = TASKS[name]
    assert len(task.docs()) >= (24 if name in SUITES["darumeru"].tasks else 8)
    if len(task.splits()) == 2:
        for doc in task.docs():
            assert len(task.fewshot(doc, 5)) == 5


CHOICES = [name for name in OURS if isinstance(TASKS[name], ChoiceTask)]


def golds(task: DarumeruTask) -> list[str]:
    return [task.gold(doc) for doc in task.docs()]


@pytest.mark.parametrize("name", CHOICES)
def test_gold_labels_are_balanced_and_shuffled(name: str) -> None:
    task = TASKS[name]
    labels = task.labels  # type: ignore[attr-defined]
    counts = [golds(task).count(label) for label in labels]
    assert max(counts) - min(counts) <= 2
    assert min(counts) >= 1
    runs = [len(list(group)) for _, group in itertools.groupby(golds(task))]
    assert max(runs) <= 5
    if len(labels) == 2:  # neither does it just alternate
        assert max(runs) >= 2


def test_examples_of_rucola_are_balanced_where_they_begin() -> None:
    labels = [row["label"] for row in rows_of("rucola", "train")[29:]]
    assert len(labels) >= 16
    assert abs(labels.count(0) - labels.count(1)) <= 2
    assert {0, 1} == set(labels[:5])


def identity(dataset: str, row: Row) -> str:
    """What makes a row another one than its fellows."""
    names = {
        "rucola": ["sentence"],
        "mmlu_nlpcoreteam": ["question_ru"],
        "daru_treeway_eval": ["src_sents"],
        "gazeta": ["text"],
    }.get(dataset)
    part: Any = {n: row[n] for n in names} if names else {k: v for k, v in row["inputs"].items() if k != "options"}
    return squeezed(" ".join(texts(part)))


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_row_twice_in_a_data_set(dataset: str) -> None:
    seen = Counter(identity(dataset, row) for split in splits_of(dataset) for row in rows_of(dataset, split))
    assert [text for text, count in seen.items() if count > 1] == []


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("parus", ["premise"]),
        ("rcb", ["premise"]),
        ("multiq", ["question", "text"]),
        ("rummlu", ["text"]),
        ("ruopenbookqa", ["text"]),
        ("ruworldtree", ["question"]),
        ("flores", ["ru", "en"]),
        ("ruscibench_grnti_ru", ["title", "abstract"]),
    ],
)
def test_questions_are_different(dataset: str, names: list[str]) -> None:
    rows = [row for split in splits_of(dataset) for row in rows_of(dataset, split)]
    for name in names:
        counts = Counter(squeezed(row["inputs"][name]) for row in rows)
        assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("language", ["ru", "en"])
def test_mmlu_questions_are_different(language: str) -> None:
    rows = rows_of("mmlu_nlpcoreteam", "test") + rows_of("mmlu_nlpcoreteam", "dev")
    counts = Counter(squeezed(row[f"question_{language}"]) for row in rows)
    assert max(counts.values()) == 1
    for row in rows:
        assert len(set(map(squeezed, row[f"choices_{language}"]))) == 4


def test_no_text_to_copy_stands_in_another_set() -> None:
    seen: dict[str, str] = {}
    for dataset in (name for name in DATASETS if name.startswith("cp_")):
        for split in splits_of(dataset):
            for row in rows_of(dataset, split):
                for paragraph in row["inputs"]["text"].split("\n\n"):
                    if len(paragraph.split()) > 7:
                        assert seen.setdefault(squeezed(paragraph), dataset) == dataset


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_latin_letter_hides_in_a_cyrillic_word(dataset: str) -> None:
    mixed = re.compile(r"\w*(?:[а-яё][a-z]|[a-z][а-яё])\w*", re.IGNORECASE)
    found = [
        word
        for split in splits_of(dataset)
        for row in rows_of(dataset, split)
        for text in texts(row)
        for word in mixed.findall(text)
    ]
    assert found == []


@pytest.mark.parametrize("dataset", [name for name in DATASETS if "messages" in rows_of(name, splits_of(name)[0])[0]])
def test_turns_and_wordings(dataset: str) -> None:
    test, prompt = rows_of(dataset, "test"), rows_of(dataset, "prompt")
    last = {row["messages"][-1]["content"] for row in test}
    if dataset.startswith("cp_"):
        assert {row["messages"][-1]["role"] for row in test} == {"user"}
    else:
        assert last == {"Перевод:" if dataset == "flores" else "Ответ:"}  # no trailing space
    wordings = {row["messages"][0]["content"] for row in test}
    # An exam's items come with the material of their kind, and each combination has its own template.
    assert 3 <= len(wordings) <= (24 if dataset == "use" else 8)
    assert all(row["messages"][-1]["role"] == "assistant" for row in prompt)
    for rows in (test, prompt):
        assert [row["meta"]["id"] for row in rows] == list(range(len(rows)))


# -- what each data set promises --------------------------------------------------------------------------------------


def test_multiq_answers_stand_where_they_are_said_to() -> None:
    for split in ("test", "prompt"):
        for row in rows_of("multiq", split):
            for answers, name in ((row["outputs"], "text"), (row["meta"]["bridge_answers"], "support_text")):
                assert answers
                for answer in answers:
                    assert answer["length"] == len(answer["segment"])
                    place = slice(answer["offset"], answer["offset"] + answer["length"])
                    assert row["inputs"][name][place] == answer["segment"]
            answer = row["outputs"][0]["segment"].casefold()
            assert answer not in row["inputs"]["question"].casefold()
            assert answer not in row["inputs"]["support_text"].casefold()  # both texts are needed


def test_extractive_labels_are_sentences_and_not_just_the_first() -> None:
    rows = rows_of("daru_treeway_eval", "test")
    for row in rows + rows_of("daru_treeway_eval", "prompt"):
        gold = row["extractive_summary"]
        assert gold == sorted(set(gold))
        assert 2 <= len(gold) <= 4
        assert 0 <= gold[0] <= gold[-1] < len(row["src_sents"])
        assert 8 <= len(row["src_sents"]) <= 16
        assert len(set(row["src_sents"])) == len(row["src_sents"])
        assert 2 <= len(row["summary_sents"]) <= 3
        assert not set(row["summary_sents"]) & set(row["src_sents"])  # in words of its own
    assert (
        sum(row["extractive_summary"] == list(range(len(row["extractive_summary"]))) for row in rows) <= len(rows) / 4
    )
    assert sum(0 in row["extractive_summary"] for row in rows) <= 0.6 * len(rows)


@pytest.mark.parametrize(
    ("dataset", "least", "most"),
    [
        ("cp_sent_ru", 8, 40),
        ("cp_sent_en", 8, 40),
        ("cp_para_ru", 60, 160),
        ("cp_para_en", 60, 160),
        ("cp_doc_ru", 350, 700),
    ],
)
def test_length_of_texts_to_copy(dataset: str, least: int, most: int) -> None:
    for row in rows_of(dataset, "test"):
        assert row["outputs"] == row["inputs"]["text"] == row["outputs"].strip()
        assert least <= len(row["outputs"].split()) <= most
    cyrillic = [bool(re.search("[а-яё]", row["outputs"])) for row in rows_of(dataset, "test")]
    assert set(cyrillic) == {dataset.endswith("ru")}


def test_parus_asks_for_causes_and_effects_alike() -> None:
    counts = Counter(row["meta"]["task"] for row in rows_of("parus", "test"))
    assert abs(counts["cause"] - counts["effect"]) <= 2
    assert set(counts) == {"cause", "effect"}


def test_rwsd_spans_are_in_the_text() -> None:
    for row in rows_of("rwsd", "test") + rows_of("rwsd", "prompt"):
        assert row["inputs"]["span1_text"] in row["inputs"]["text"]
        assert row["inputs"]["span2_text"] in row["inputs"]["text"]


def test_exam_variants_and_keys() -> None:
    variants: dict[Any, list[Row]] = {}
    for row in rows_of("use", "test"):
        variants.setdefault(row["meta"]["variant"], []).append(row)
        kind, number, gold = row["meta"]["type"], row["meta"]["id_task"], row["outputs"]
        if kind == "text":
            assert re.fullmatch(r"[а-яё]+(,[а-яё]+)*", gold)
        else:
            assert re.fullmatch(r"\d+(,\d+)*", gold)
        if kind.startswith("multiple_choice"):
            digits = [int(d) for d in gold.split(",")]
            assert digits == sorted(set(digits))
        assert (kind == "matching") == (number in ("8", "26"))
        assert row["meta"]["score"] == {"8": 5, "26": 4, "16": 2}.get(number, 1)
        if kind == "matching":
            assert len(gold.split(",")) == row["meta"]["score"]
        if row["inputs"]["choices"] and kind != "text":
            offered = set(re.findall(r"^(\d+)\)", row["inputs"]["choices"], flags=re.MULTILINE))
            assert set(gold.split(",")) <= offered
    assert len(variants) >= 4
    for items in variants.values():
        numbers = [row["meta"]["id_task"] for row in items]
        assert len(items) >= 8
        assert len(set(numbers)) == len(numbers)
        assert "16" in numbers
        points = sum(row["meta"]["score"] for row in items)
        assert {row["meta"]["max_points"] for row in items} == {points}


def test_dialogues_have_earlier_turns() -> None:
    rows = rows_of("rutie", "test")
    numbers = [row["meta"]["question_id"] for row in rows]
    assert numbers == sorted(set(numbers))
    turns = Counter(row["meta"]["dialog_id"] for row in rows)
    assert len(turns) >= 3
    assert set(turns.values()) <= {3, 4, 5}
    for row in rows:
        if row["meta"]["use_context"]:  # a first turn has nothing to refer to
            assert any(
                r["meta"]["dialog_id"] == row["meta"]["dialog_id"]
                and r["meta"]["question_id"] < row["meta"]["question_id"]
                for r in rows
            )


def test_science_rubrics_are_the_same_in_all_rows() -> None:
    rows = rows_of("ruscibench_grnti_ru", "test") + rows_of("ruscibench_grnti_ru", "prompt")
    assert len({row["inputs"]["options"] for row in rows}) == 1
    options = rows[0]["inputs"]["options"].split("\n")
    assert [option[:3] for option in options] == [f"{chr(65 + i)}. " for i in range(26)]


def test_options_of_a_question_are_different() -> None:
    for dataset in ("rummlu", "ruopenbookqa", "ruworldtree"):
        for row in rows_of(dataset, "test") + rows_of(dataset, "prompt"):
            assert len({squeezed(row["inputs"][f"option_{letter}"]) for letter in "abcd"}) == 4


def test_longest_option_does_not_give_the_answer_away() -> None:
    """A model that always takes the longest option must not do much better than chance (1/4)."""
    for dataset in ("rummlu", "ruopenbookqa", "ruworldtree"):
        rows = rows_of(dataset, "test")
        hits = 0
        for row in rows:
            lengths = {letter: len(row["inputs"][f"option_{letter.lower()}"]) for letter in "ABCD"}
            hits += max(lengths, key=lambda letter: lengths[letter]) == row["outputs"]
        assert hits / len(rows) < 0.5
