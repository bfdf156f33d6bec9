"""Prompts and scores that the benchmark defines: MMLU's categories, the order of examples, golds as data sets have them."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from darumeru.cli.tables import scores_table
from darumeru.data.bundle import MINI, FolderBundle, Row
from darumeru.evaluation import execute, prepare, settings_of
from darumeru.inference.prompt import FOUNDATION_STOP, conversation
from darumeru.requests import Answer
from darumeru.scoring.aggregate import Table, category_mean, macro_mean
from darumeru.task import DarumeruTask, GenerateTask, Wording
from darumeru.task.check import check
from darumeru.task.score import table_of
from darumeru.task.suite import Catalogue
from support.tiny import KnowingEngine

CATALOGUE = Catalogue()


def task_on(folder: Path, dataset: str, split: str, rows: list[Row], name: str) -> DarumeruTask:
    """The task on a copy of the mini bundle whose split holds other rows."""
    bundle = folder / "bundle"
    shutil.copytree(MINI / dataset, bundle / dataset)
    file = bundle / dataset / f"{split}.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return CATALOGUE.load([name], FolderBundle(bundle, "mine"))[name]


# -- MMLU ---------------------------------------------------------------------------------------------------------------


def subjects(task: DarumeruTask) -> dict[str, Any]:
    return dict(vars(__import__("sys").modules[type(task).__module__])["SUBJECTS"])


def test_57_subjects_in_four_categories() -> None:
    """The sizes that Hendrycks et al. (2021) give: 18 STEM, 13 humanities, 12 social sciences, 14 others."""
    table = subjects(CATALOGUE.load(["mmlu_ru"], "mini")["mmlu_ru"])
    assert len(table) == 57
    assert Counter(s.category for s in table.values()) == {
        "STEM": 18, "humanities": 13, "social sciences": 12, "other": 14,
    }  # fmt: skip
    # Members that their names do not give away.
    expected = {
        "anatomy": "other", "business_ethics": "other", "econometrics": "social sciences", "formal_logic": "humanities",
        "high_school_statistics": "STEM", "human_aging": "other", "human_sexuality": "social sciences",
        "professional_law": "humanities", "professional_psychology": "social sciences", "virology": "other",
    }  # fmt: skip
    assert {name: table[name].category for name in expected} == expected
    russian = [s.russian for s in table.values()]
    assert len(set(russian)) == 57
    assert not any("_" in name or name.isascii() for name in russian)


def test_a_category_weighs_a_quarter_however_many_subjects_it_has() -> None:  # pragma: allowlist secret
    strata = ["STEM/a", "STEM/a", "STEM/a", "STEM/b", "other/c", "humanities/d", "humanities/d", "social sciences/e"]
    right = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    table = Table.build({"acc": right}, [None] * 8, [None] * 8, [None] * 8, strata)
    # STEM (2/3 + 0) / 2, other 1, humanities 1/2, social sciences 0.
    assert category_mean(table, "acc", table.ones()) == pytest.approx([(1 / 3 + 1 + 1 / 2 + 0) / 4])
    assert macro_mean(table, "acc", table.ones()) == pytest.approx([(2 / 3 + 0 + 1 + 1 / 2 + 0) / 5])
    weights = np.array([[1.0] * 8, [0.0, 0.0, 3.0, 1.0, 1.0, 2.0, 0.0, 1.0]])
    assert category_mean(table, "acc", weights)[1] == pytest.approx((0 + 1 + 1 + 0) / 4)


def test_mmlu_states_all_three_means() -> None:
    task = CATALOGUE.load(["mmlu_ru"], "mini")["mmlu_ru"]
    docs = task.docs()
    answers = [Answer("", logprobs=(0.0, -1.0, -2.0, -3.0)) for _ in docs]  # always A
    table = table_of([task.score(doc, [answer], [None]) for doc, answer in zip(docs, answers, strict=True)])
    found = {name: float(f(table, name, table.ones())[0]) for name, f in task.metrics.items()}
    by_subject: dict[str, list[int]] = {}
    for doc in docs:
        by_subject.setdefault(doc["subject"], []).append(doc["answer"] == 0)
    means = {subject: sum(hits) / len(hits) for subject, hits in by_subject.items()}
    categories: dict[str, list[float]] = {}
    for subject, value in means.items():
        categories.setdefault(subjects(task)[subject].category, []).append(value)
    assert found["acc"] == pytest.approx(np.mean([np.mean(values) for values in categories.values()]))
    assert found["acc_macro"] == pytest.approx(np.mean(list(means.values())))
    assert found["acc_plain"] == pytest.approx(np.mean([doc["answer"] == 0 for doc in docs]))
    assert len(categories) == 4


@pytest.mark.parametrize(("name", "subject"), [("mmlu_ru", "«астрономия»"), ("mmlu_en", "on astronomy,")])
def test_the_subject_is_named_once_and_in_the_language_of_the_prompt(name: str, subject: str) -> None:
    task = CATALOGUE.load([name], "mini")[name]
    doc = next(d for d in task.docs() if d["subject"] == "astronomy")
    turns = conversation(task.queries(doc)[0], task.fewshot(doc, 5))
    assert len(turns) == 12
    assert subject in turns[0]["content"]
    assert sum(subject in turn["content"] for turn in turns) == 1
    question = f"question_{name[-2:]}"
    dev = [row[question] for row in task.split("dev").rows if row["subject"] == "astronomy"]
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    assert [next(i for i, q in enumerate([*dev, doc[question]]) if q in text) for text in asked] == [0, 1, 2, 3, 4, 5]
    alone = conversation(task.queries(doc)[0])
    assert subject in alone[0]["content"]
    if name == "mmlu_ru":
        assert not any("astronomy" in turn["content"] for turn in turns)


@pytest.mark.parametrize(("headline", "expected"), [("Тема: {{subject_ru}}.", "Тема: астрономия.\n\n"), ("", "")])
def test_a_wording_replaces_the_headline(headline: str, expected: str) -> None:
    task = CATALOGUE.load(["mmlu_ru"], "mini", {"mmlu_ru": Wording(headline=headline)})["mmlu_ru"]
    doc = next(d for d in task.docs() if d["subject"] == "astronomy")
    assert conversation(task.queries(doc)[0])[0]["content"].startswith(expected + doc["question_ru"])


def test_a_subject_that_mmlu_does_not_have_is_named(tmp_path: Path) -> None:
    row = json.loads((MINI / "mmlu_nlpcoreteam" / "test.jsonl").read_text("utf-8").splitlines()[0])
    task = task_on(tmp_path, "mmlu_nlpcoreteam", "test", [{**row, "subject": "alchemy"}], "mmlu_ru")
    assert "field 'subject': 'alchemy' is none of MMLU's 57 subjects" in str(task.check(task.split("test").rows[0]))


# -- order of examples ----------------------------------------------------------------------------------------------------


def test_the_first_example_is_nearest_to_the_question() -> None:
    task = CATALOGUE.load(["rcb"], "mini")["rcb"]
    rows = task.split("prompt").rows
    shown = [turns[0]["content"] for turns in task.fewshot(task.docs()[0], 3)]
    for text, row in zip(shown, [rows[2], rows[1], rows[0]], strict=True):
        assert row["inputs"]["premise"] in text


# -- golds --------------------------------------------------------------------------------------------------------------


def test_repeated_and_impossible_gold_sentences_are_counted_and_stop_nothing(tiny_chat: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (MINI / "daru_treeway_eval" / "test.jsonl").read_text("utf-8").splitlines()][
        :3
    ]
    count = len(rows[0]["src_sents"])
    rows[0]["extractive_summary"] = [2, 0, 2, 2, count, count + 7]
    rows[1]["extractive_summary"] = [99, 99]
    task = task_on(tmp_path, "daru_treeway_eval", "test", rows, "sum_extractive")
    bundle = FolderBundle(tmp_path / "bundle", "mine")
    assert check(bundle, {"sum_extractive": task}) == []
    plan = prepare(settings_of(model=str(tiny_chat), data=str(bundle.root), tasks=["sum_extractive"]))
    run = execute(plan, tmp_path / "runs", open_engine=KnowingEngine)
    result = run.scores.tasks["sum_extractive"]
    assert (result.repeated_golds, result.golds_outside) == (2 + 1, 2 + 1)
    samples = list(run.samples("sum_extractive"))
    assert [sample.gold for sample in samples] == [[2, 0], [], rows[2]["extractive_summary"]]
    # What is left of the first row's golds is found; the second row cannot be answered.
    assert [sample.score["r_precision"] for sample in samples] == [1.0, 0.0, 1.0]


def test_a_rubric_without_a_letter_is_wrong_and_counted(tiny_chat: Path, tmp_path: Path) -> None:
    name = "ruscibench_grnti_ru"
    dataset = CATALOGUE.load([name], "mini")[name].dataset
    rows = [json.loads(line) for line in (MINI / dataset / "test.jsonl").read_text("utf-8").splitlines()][:4]
    rows[1]["outputs"] = "["
    task = task_on(tmp_path, dataset, "test", rows, name)
    assert len(task.docs()) == 4
    right = [Answer("", logprobs=tuple(float(label == row["outputs"]) for label in task.labels)) for row in rows]  # type: ignore[attr-defined]
    scores = [task.score(row, [answer], [None]) for row, answer in zip(rows, right, strict=True)]
    assert [s.metrics["acc"] for s in scores] == [1.0, 0.0, 1.0, 1.0]
    assert [s.golds_outside for s in scores] == [0, 1, 0, 0]
    table = table_of(scores)
    assert task.metrics["acc"](table, "acc", table.ones()) == pytest.approx([0.75])


def test_other_tasks_refuse_a_gold_that_is_no_label(tmp_path: Path) -> None:
    row = json.loads((MINI / "rcb" / "test.jsonl").read_text("utf-8").splitlines()[0])
    task = task_on(tmp_path, "rcb", "test", [{**row, "outputs": "4"}], "rcb")
    assert "label '4' is not one of 1, 2, 3" in str(task.check(task.split("test").rows[0]))


# -- data as the hub has it ---------------------------------------------------------------------------------------------


def test_exam_items_have_parts(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (MINI / "use" / "test.jsonl").read_text("utf-8").splitlines()]
    parts = [{**row, "meta": {**row["meta"], "id_task": f"8_{i}"}} for i, row in enumerate(rows[:5])]
    task = task_on(tmp_path, "use", "test", parts, "use")
    assert [str(f) for f in check(FolderBundle(tmp_path / "bundle", "mine"), {"use": task})] == []


@pytest.mark.parametrize("end", ["Перевод: ", "Перевод:\n", "Перевод:"])
def test_a_translation_follows_an_examples_last_turn_as_it_stands(tmp_path: Path, end: str) -> None:
    row = json.loads((MINI / "flores" / "prompt.jsonl").read_text("utf-8").splitlines()[0])
    row["messages"][-1]["content"] = end
    task = task_on(tmp_path, "flores", "prompt", [row], "flores_ru_en")
    assert task.fewshot(task.docs()[0], 1)[0][-1]["content"] == end + row["inputs"]["en"]


def test_one_dialogue_has_no_interval_and_says_why(tiny_chat: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (MINI / "rutie" / "test.jsonl").read_text("utf-8").splitlines()]
    one = [row for row in rows if row["meta"]["dialog_id"] == rows[0]["meta"]["dialog_id"]]
    assert len(one) > 1
    task_on(tmp_path, "rutie", "test", one, "rutie")
    settings = settings_of(
        model=str(tiny_chat), data=str(tmp_path / "bundle"), suite="darumeru-extended", tasks=["rutie"]
    )
    run = execute(prepare(settings), tmp_path / "runs", open_engine=KnowingEngine)
    result = run.scores.tasks["rutie"]
    assert (result.units, result.score.value, result.score.low) == (1, 1.0, None)
    terminal = Console(width=200, record=True, file=io.StringIO())
    terminal.print(scores_table(run))
    assert "no interval: all documents are one independent unit" in terminal.export_text()


@pytest.mark.parametrize("name", [*CATALOGUE.suite("darumeru").tasks, *CATALOGUE.suite("darumeru-extended").tasks])
def test_no_answer_holds_what_ends_it(name: str) -> None:
    """A base model's answer ends at a blank line, or where the task says: a right answer must not be cut there."""
    task = CATALOGUE.load([name], "mini")[name]
    if not isinstance(task, GenerateTask):
        return
    ends = task.options.until or (FOUNDATION_STOP,)
    golds = [task.gold_text(doc) for doc in task.docs()]
    shown = [turns[-1]["content"] for turns in task.fewshot(task.docs()[0], 5)]
    assert not [text for text in golds + shown for end in ends if end in text]
