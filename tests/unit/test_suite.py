"""Suites: their tasks, their arithmetic against the published tables, wordings and further folders."""

import csv
from pathlib import Path

import pytest

from darumeru.errors import UserError
from darumeru.task.suite import Catalogue, read_wording, summarise

PUBLISHED = Path(__file__).parents[2] / "leaderboards" / "published.csv"
GROUPS = {"darummlu": 3, "darumera": 8, "darusum": 2, "darucopy_en": 2, "darucopy_ru": 2}


def test_published_rows_agree_with_the_suites_arithmetic() -> None:
    suite = Catalogue().suite("darumeru")
    assert {g.name: len(g.tasks) for g in suite.groups} == GROUPS
    with PUBLISHED.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 52
    for row in rows:
        # Only the groups' means are published: giving each task its group's mean must give the published mean.
        scores = {task: float(row[group.name]) for group in suite.groups for task in group.tasks}
        summary = summarise(suite, scores)
        assert summary["darumeru"] == pytest.approx(float(row["micro_avg"]), abs=0.0012), row


def test_a_missing_task_leaves_the_means_blank() -> None:
    suite = Catalogue().suite("darumeru")
    scores = dict.fromkeys(suite.tasks, 0.5)
    del scores["rcb"]
    summary = summarise(suite, scores)
    assert summary["darumeru"] is None
    assert summary["darumera"] is None
    assert summary["darummlu"] == 0.5


def test_a_part_of_the_suite_is_not_called_micro_avg() -> None:
    suite = Catalogue().suite("darumeru", ["parus", "rcb"])
    assert suite.summary == "Mean of 2 of 17 tasks"
    assert [g.title for g in suite.groups] == ["DaruMERA, 2 of 8"]


@pytest.mark.parametrize(
    ("suite", "tasks", "title", "counted"),
    [
        ("darumeru", ["parus", "bpb_ru"], "Mean of 1 of 17 tasks", ("parus",)),
        ("darumeru", ["gazeta", "bpb_ru", "multiq_gold"], "Mean of 1 of 3 tasks", ("gazeta",)),
        ("darumeru", ["parus", "gazeta", "bpb_ru"], "Mean of 2 of 3 tasks", ("parus", "gazeta")),
        ("darumeru", ["parus", "gazeta"], "Mean of 2 tasks", ("parus", "gazeta")),
        ("darumeru", ["bpb_ru", "bpb_corpus"], "No mean", ()),
        ("darumeru-train", ["bpb_ru", "cp_sent_ru"], "Mean of 1 of 13 tasks", ("cp_sent_ru",)),
    ],
)
def test_bits_and_log_probabilities_are_in_no_mean(
    suite: str, tasks: list[str], title: str, counted: tuple[str, ...]
) -> None:
    """Less is better of bits per byte, and neither they nor log-probabilities lie between 0 and 1."""
    found = Catalogue().suite(suite, tasks)
    assert (found.summary, found.counted) == (title, counted)
    assert set(found.tasks) == set(tasks), "all are asked and shown"
    kinds = [{"bpb_ru", "bpb_corpus"}, {"multiq_gold"}, {"parus", "gazeta", "cp_sent_ru"}]
    for group in found.groups:
        assert sum(bool(kind & set(group.tasks)) for kind in kinds) == 1, f"{group.title} mixes measures"


def test_another_measure_beside_the_whole_suite_leaves_its_mean() -> None:
    tasks = Catalogue().suite("darumeru").tasks
    assert Catalogue().suite("darumeru", [*tasks, "bpb_ru"]).summary == "Micro-Avg"
    assert Catalogue().suite("darumeru", [*tasks, "gazeta"]).summary == "Mean of 18 tasks"


def test_a_stock_task_is_refused_with_the_place_that_helps(tmp_path: Path) -> None:
    (tmp_path / "stock.yaml").write_text(
        "task: stock\ndataset_path: a/b\noutput_type: generate_until\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"stock lm-eval task.*See '(.*)' in (\S+)\.$") as refused:
        Catalogue([tmp_path]).suite("darumeru", ["stock"])
    heading, file = str(refused.value).rpartition("See '")[2].rstrip(".").split("' in ")
    page = (Path(__file__).parents[2] / file).read_text(encoding="utf-8")
    assert f"## {heading}\n" in page


def test_unknown_names_list_the_alternatives() -> None:
    with pytest.raises(UserError, match=r"Unknown task 'paruss'\. Did you mean 'parus'\?.*Available: .*rcb"):
        Catalogue().suite("darumeru", ["paruss"])
    with pytest.raises(UserError, match=r"Unknown suite 'darumer'\. Did you mean 'darumeru'\?"):
        Catalogue().suite("darumer")


def test_wording_replaces_the_prompts_of_any_task(tmp_path: Path) -> None:
    file = tmp_path / "wording.yaml"
    file.write_text(
        "parus:\n  doc_to_text: 'Что вероятнее? {{inputs.premise}} 1) {{inputs.choice1}} 2) {{inputs.choice2}}'\n"
        "  gen_prefix: 'Выбор:'\nrucola:\n  gen_prefix: 'Оценка:'\n",
        encoding="utf-8",
    )
    tasks = Catalogue().load(["parus", "rucola"], "mini", read_wording(file))
    doc = tasks["parus"].docs()[0]
    first, second = (q.messages for q in tasks["parus"].queries(doc))
    assert first[0]["content"].startswith("Что вероятнее? " + doc["inputs"]["premise"])
    assert first[-1] == {"role": "assistant", "content": "Выбор:"}
    assert f"1) {doc['inputs']['choice2']} 2) {doc['inputs']['choice1']}" in second[0]["content"]
    example = tasks["parus"].fewshot(doc, 1)[0]
    assert example[-1]["content"].startswith("Выбор: ")
    assert tasks["rucola"].queries(tasks["rucola"].docs()[0])[0].messages[-1]["content"] == "Оценка:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rucola: {gen_prefx: x}", r"rucola.*|gen_prefx.*Extra inputs"),
        ("- a", "must map task names"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_wording_is_named(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_wording(file)


def test_wording_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("rucola: {doc_to_text: \"{{ ''.__class__.__mro__ }}\"}", encoding="utf-8")
    task = Catalogue().load(["rucola"], "mini", read_wording(file))["rucola"]
    with pytest.raises(Exception, match="unsafe"):
        task.queries(task.split("validation").rows[0])


def test_a_folder_of_further_tasks(tmp_path: Path) -> None:
    (tmp_path / "sentiment.yaml").write_text(
        "task: sentiment\nclass: !function darumeru.task.ChoiceTask\ndataset_path: someone/sentiment\n"
        "test_split: test\ndoc_to_text: 'Отзыв: {{text}}'\ngen_prefix: 'Ответ:'\ndoc_to_choice: ['нет', 'да']\n"
        "doc_to_target: '{{label}}'\nmetadata: {version: 1.0, darumeru: {primary: [acc]}}\n",
        encoding="utf-8",
    )
    bundle = tmp_path / "bundle" / "sentiment"
    bundle.mkdir(parents=True)
    (bundle / "test.jsonl").write_text('{"text": "Очень понравилось", "label": "да"}\n', encoding="utf-8")
    catalogue = Catalogue([tmp_path])
    suite = catalogue.suite("darumeru", ["sentiment"])
    assert suite.tasks == ("sentiment",)
    task = catalogue.load(suite.tasks, str(tmp_path / "bundle"))["sentiment"]
    assert task.queries(task.docs()[0])[0].options == ("нет", "да")


def test_unknown_task_option_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        "task: odd\nclass: !function darumeru.task.ChoiceTask\ndataset_path: a/b\ntest_split: test\n"
        "metadata: {darumeru: {primary: [acc], strata: x}}\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError, match="Task 'odd': strata: Extra inputs"):
        Catalogue([tmp_path]).load(["odd"], "mini")
