"""A new task is one new file: a YAML in a folder of the user's runs, checks and lists, and the project stays as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import call

TASKS = Path(__file__).parents[2] / "tasks"
SENTIMENT = """\
task: sentiment
class: !function darumeru.task.ChoiceTask
dataset_path: someone/sentiment
test_split: test
fewshot_split: prompt
doc_to_text: 'Отзыв: {{text}}'
gen_prefix: 'Оценка:'
doc_to_choice: ['хорошо', 'плохо']
doc_to_target: '{{label}}'
metadata: {version: 1.0, darumeru: {primary: [acc]}}
"""
LETTERS = """\
task: letters
class: !function lettering.Letters
dataset_path: someone/letters
test_split: test
num_fewshot: 0
doc_to_text: 'Сколько букв в слове «{{word}}»?'
generation_kwargs: {max_gen_toks: 6}
metadata: {version: 1.0, darumeru: {primary: [right]}}
"""
LETTERING = '''\
"""Letters counted."""

from darumeru.scoring.aggregate import mean
from darumeru.task import GenerateTask, Score


class Letters(GenerateTask):
    """`right`: the answer is the number of letters; `length`: of the answer's characters."""

    METRICS = {"right": mean, "length": mean}

    def gold(self, doc):
        """The number of letters."""
        return str(len(doc["word"]))

    def score(self, doc, answers, reference_tokens):
        """Compare the numbers."""
        text = answers[0].text
        return Score({"right": float(text.strip() == self.gold(doc)), "length": float(len(text))})
'''
SUITE = """\
group: home
group_alias: Mean of mine
task:
  - group: mine
    group_alias: Mine
    task: [sentiment, letters]
metadata: {version: 1.0}
"""
REVIEWS = [
    ("Очень понравилось", "хорошо"),
    ("Деньги на ветер", "плохо"),
    ("Приеду ещё раз", "хорошо"),
    ("Суп был холодный", "плохо"),
]
WORDS = ["дом", "окно", "река"]


def write_rows(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A user's folder: `tasks/` with the two tasks, `bundle/` with their rows."""
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sentiment.yaml").write_text(SENTIMENT, encoding="utf-8")
    (tmp_path / "tasks" / "letters.yaml").write_text(LETTERS, encoding="utf-8")
    (tmp_path / "tasks" / "lettering.py").write_text(LETTERING, encoding="utf-8")
    reviews = [{"text": text, "label": label} for text, label in REVIEWS]
    write_rows(tmp_path / "bundle" / "sentiment" / "test.jsonl", reviews[1:])
    write_rows(tmp_path / "bundle" / "sentiment" / "prompt.jsonl", reviews[:1])
    write_rows(tmp_path / "bundle" / "letters" / "test.jsonl", [{"word": word} for word in WORDS])
    return tmp_path


def fingerprint_of_ours() -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(TASKS.iterdir()) if p.is_file()}


def run(home: Path, model: Path, *more: object) -> Path:
    """Run tasks of the user's folder; the folder of the run."""
    call(
        *("run", "--model", model, "--engine", "hf", "--data", home / "bundle", "--include-path", home / "tasks"),
        *("--output", home / "runs", "--num-fewshot", 1, *more),
    )
    (folder,) = (home / "runs").iterdir()
    return folder


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    lines = (folder / "samples" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def task_scores(folder: Path) -> dict[str, Any]:
    scores: dict[str, Any] = json.loads(call("show", folder, "--json"))["scores"]["tasks"]
    return scores


def test_a_task_of_one_yaml_file_runs(home: Path, tiny_chat: Path) -> None:
    ours = fingerprint_of_ours()
    folder = run(home, tiny_chat, "--tasks", "sentiment")
    found = samples(folder, "sentiment")
    assert [sample["gold"] for sample in found] == ["плохо", "хорошо", "плохо"]
    prompt = found[0]["requests"][0]["prompt"]
    assert "Отзыв: Очень понравилось" in prompt, "the example"
    assert "Оценка: хорошо" in prompt, "its answer"
    assert prompt.index("Отзыв: Деньги на ветер") > prompt.index("Оценка: хорошо")
    assert prompt.endswith("Оценка:")
    right = sum(sample["pred"] == sample["gold"] for sample in found)
    score = task_scores(folder)["sentiment"]
    assert score["documents"] == 3
    assert score["metrics"]["acc"]["value"] == pytest.approx(right / 3)
    assert score["score"]["value"] == pytest.approx(right / 3)
    assert fingerprint_of_ours() == ours


def test_a_task_with_a_python_file_beside_it_runs(home: Path, tiny_chat: Path) -> None:
    ours = fingerprint_of_ours()
    folder = run(home, tiny_chat, "--tasks", "letters")
    found = samples(folder, "letters")
    assert [sample["gold"] for sample in found] == ["3", "4", "4"]
    assert "Сколько букв в слове «окно»?" in found[1]["requests"][0]["prompt"]
    answers = [sample["requests"][0]["answer"] for sample in found]
    assert all(len(answer["tokens"]) <= 6 for answer in answers)
    metrics = task_scores(folder)["letters"]["metrics"]
    assert metrics["length"]["value"] == pytest.approx(sum(len(answer["text"]) for answer in answers) / 3)
    right = [answer["text"].strip() == gold for answer, gold in zip(answers, ["3", "4", "4"], strict=True)]
    assert metrics["right"]["value"] == pytest.approx(sum(right) / 3)
    assert fingerprint_of_ours() == ours


def test_a_suite_is_one_file_too(home: Path, tiny_chat: Path) -> None:
    (home / "tasks" / "home.yaml").write_text(SUITE, encoding="utf-8")
    assert "home" in call("list", "suites", "--include-path", home / "tasks")
    folder = run(home, tiny_chat, "--suite", "home")
    tasks = task_scores(folder)
    assert set(tasks) == {"sentiment", "letters"}
    suite = json.loads(call("show", folder, "--json"))["scores"]["suite"]
    assert suite["title"] == "Mean of mine"
    assert suite["value"] == pytest.approx(sum(task["score"]["value"] for task in tasks.values()) / 2)


def test_a_new_task_is_listed_and_its_bundle_checked(home: Path) -> None:
    listed = call("list", "tasks", "--include-path", home / "tasks").split()
    assert {"sentiment", "letters", "rucola"} <= set(listed)
    assert not {"sentiment", "letters"} & set(call("list", "tasks").split())
    out = call("data", "check", home / "bundle", "--include-path", home / "tasks")
    assert "sentiment" in out
    assert "test 3, prompt 1" in out


def test_faults_of_a_new_tasks_rows_are_named(home: Path, tiny_chat: Path) -> None:
    reviews = [{"text": text, "label": label} for text, label in REVIEWS[1:]]
    reviews[1]["label"] = "так себе"
    del reviews[2]["text"]
    write_rows(home / "bundle" / "sentiment" / "test.jsonl", reviews)
    write_rows(home / "bundle" / "letters" / "test.jsonl", [{"word": "дом"}, {"words": "окно"}])
    out = " ".join(call("data", "check", home / "bundle", "--include-path", home / "tasks", code=2).split())
    assert "sentiment/test.jsonl, row 2" in out
    assert "label 'так себе' is not one of хорошо, плохо" in out
    assert "sentiment/test.jsonl, row 3" in out
    assert "field 'text': is undefined" in out
    assert "letters/test.jsonl, row 2" in out
    args = ("run", "--model", tiny_chat, "--engine", "hf", "--data", home / "bundle", "--output", home / "runs")
    out = call(*args, "--include-path", home / "tasks", "--tasks", "letters", code=2)
    assert "data set 'letters', split 'test', row 2" in " ".join(out.split())
