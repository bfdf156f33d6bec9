"""What a reader must know of a number stands beside it: approximate answers, engine and precision, data, model."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from darumeru.exports import as_text, export
from darumeru.leaderboard import build, compare
from darumeru.record.run import Run
from support.commands import call
from support.synthetic import edited, make_run

RUNS = Path(__file__).parents[2] / "leaderboards" / "runs"
MINI, PART = RUNS / "smollm2-135m-instruct-mini", RUNS / "gemma-3-270m-mini-part"


# -- approximate answers ------------------------------------------------------------------------------------------------


@pytest.fixture
def approximate(tmp_path: Path) -> Path:
    """The real record as if a server had given approximate answers in two tasks."""

    def change(scores: dict[str, Any]) -> None:
        for task in ("parus", "rwsd"):
            scores["tasks"][task]["approximate_answers"] = 7

    return edited(Path(shutil.copytree(MINI, tmp_path / "approximate")), "scores.json", change)


def test_boards_mark_approximate_numbers(approximate: Path, tmp_path: Path) -> None:
    site = build([approximate], tmp_path / "site", published=False, samples=False).path
    (row,) = json.loads((site / "table.json").read_text(encoding="utf-8"))["rows"]
    (badge,) = [b for b in row["badges"] if b["kind"] == "approximate_answers"]
    assert (badge["level"], badge["values"]) == ("warn", {"n": 14, "tasks": "parus, rwsd"})
    assert "approximate_answers" in (site / "table.csv").read_text(encoding="utf-8")
    for table in ("table.md", "table.tex"):
        assert re.search(r"SmolLM2.*zero-shot, approximate", (site / table).read_text(encoding="utf-8")), table
    page = next((site / "runs").glob("*/index.html")).read_text(encoding="utf-8")
    assert len(re.findall(r"approximate answers</span> 7", page)) == 2
    script = (site / "assets" / "common.js").read_text(encoding="utf-8")
    assert script.count(" b_approximate_answers_text:") == 2, "told in both languages"


def test_comparisons_and_exports_mark_approximate_numbers(approximate: Path, tmp_path: Path) -> None:
    (remark,) = compare(Run(MINI), Run(approximate), ["rcb"]).remarks
    assert re.match(r"B: some answers are approximate.*: parus, rwsd\.$", remark)
    assert not compare(Run(MINI), Run(MINI), ["rcb"]).remarks
    for format_ in ("markdown", "latex", "badge", "model-index"):
        assert "approximate" in as_text(approximate, format_), format_
        assert "approximate" not in as_text(MINI, format_), format_
    for format_ in ("lm-eval", "every-eval-ever"):
        files = export(approximate, format_, tmp_path / format_, name="team/m")
        (told,) = (file for file in files if file.suffix == ".json")
        assert re.search(
            r'"approximate_answers": (\[\s*)?"rwsd|"approximate_answers": (\[\s*)?"parus', told.read_text()
        )
    source = {"source": "hub:a/b", "repository": "a/b", "revision": "1" * 40}
    edited(approximate, "header.json", lambda h: h["tasks"]["parus"]["data"]["test"].update(source))
    (entry,) = yaml.safe_load(as_text(approximate, "hf-eval-results"))
    assert "approximate answers: 7 of 56" in entry["notes"]


# -- how it was computed ------------------------------------------------------------------------------------------------


def test_comparisons_say_where_engine_precision_and_quantisation_differ(tmp_path: Path) -> None:
    def run(name: str, seed: int, **header: Any) -> Run:
        made = make_run(tmp_path / name, "m", seed=seed, tasks=["parus"], **header)
        taken = {"dtype": header["engine"]["dtype"], "device": "cpu"}
        return Run(edited(made, "scores.json", lambda s: s.update(engine=taken)))

    plain = {"name": "hf", "version": "transformers 5", "dtype": "float32", "device": "cpu", "model_args": {}}
    small = {
        "name": "vllm", "version": "vllm 0.32", "dtype": "bfloat16", "device": "cpu", "model_args": {"load_in_4bit": True},
    }  # fmt: skip
    one, two, three = run("a", 1, engine=plain), run("b", 2, engine=small), run("c", 3, engine=plain)
    edited(three.path, "header.json", lambda h: h["model"].update(adapter_sha256="f" * 64))
    assert compare(one, two).remarks == [
        "Engine differs: hf, transformers 5 against vllm, vllm 0.32.",
        "dtype differs: float32 against bfloat16.",
        "Setting of the engine differs: none against load_in_4bit=True.",
    ]
    assert compare(one, three).remarks == ["Adapter differs: none against ffffffffffff."]


# -- data and model -----------------------------------------------------------------------------------------------------


def test_every_table_names_the_data(tmp_path: Path) -> None:
    assert "data mini" in " ".join(call("show", MINI).split())
    both = " ".join(call("compare", MINI, MINI, "--task", "parus", "--output", tmp_path / "page").split())
    assert both.count("data mini") == 2
    assert call("compare", MINI, MINI, "--task", "parus", "--markdown").count("data mini") == 2
    assert (tmp_path / "page" / "index.html").read_text(encoding="utf-8").count("data mini") == 2
    for format_ in ("latex", "markdown", "badge"):
        assert "mini" in call("export", MINI, "--format", format_), format_


def test_a_list_of_runs_names_each_mean_and_its_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    lines = call("list", "runs", "--output", RUNS).splitlines()
    part, whole = (next(line for line in lines if run.name in line) for run in (PART, MINI))
    assert re.search(
        r"foundation, 5-shot, data mini\s+Mean of 5 of 17 tasks 0\.296 \[0\.160, 0\.432\]\s+complete", part
    )
    assert re.search(r"instruct, 0-shot, data mini\s+Micro-Avg 0\.252 \[0\.227, 0\.297\]\s+complete", whole)
    monkeypatch.setenv("COLUMNS", "80")
    narrow = call("list", "runs", "--output", RUNS)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


@pytest.mark.parametrize("format_", ["markdown", "latex", "badge", "model-index"])
def test_the_model_is_called_as_the_user_says(format_: str) -> None:
    said = call("export", PART, "--format", format_, "--name", "team/model-x")
    assert "team/model-x" in said
    assert "gemma" not in said
    assert "gemma" in call("export", PART, "--format", format_)


# -- gold answers -------------------------------------------------------------------------------------------------------


def test_a_gold_answer_may_be_any_json(tmp_path: Path) -> None:
    """A task of a user whose rows have a number for an answer: shown, and compared."""
    runs = [
        make_run(tmp_path / n, n, skill=s, seed=i, tasks=["multiq"])
        for i, (n, s) in enumerate((("a", 0.6), ("b", 0.4)))
    ]
    for run in runs:
        file = run / "samples" / "multiq.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["gold"] = {0: 41.5, 1: ["да", 7], 2: {"x": "y"}}.get(row["id"], 40)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        edited(run, "scores.json", lambda scores: None)
        sealed = json.loads((run / "manifest.json").read_text())
        sealed["files"]["samples/multiq.jsonl"] = file_sum(file)
        (run / "manifest.json").write_text(json.dumps(sealed))
    assert re.search(r"gold\s+41\.5", call("show", runs[0], "--task", "multiq", "--sample", 0))
    assert re.search(r"gold\s+да, 7", call("show", runs[0], "--task", "multiq", "--sample", 1))
    assert re.search(r'gold\s+{"x": "y"}', call("show", runs[0], "--task", "multiq", "--sample", 2))
    call("compare", *runs, "--output", tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert {'<pre dir="auto">41.5</pre>', '<pre dir="auto">да, 7</pre>'} <= set(
        re.findall(r"<pre[^>]*>[^<]*</pre>", page)
    )


def file_sum(file: Path) -> str:
    import hashlib

    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_comparison_replaces_its_own_folder_alone(tmp_path: Path) -> None:
    page = tmp_path / "page"
    for _ in range(2):
        call("compare", MINI, MINI, "--task", "parus", "--output", page)
    assert {path.name for path in page.iterdir()} == {"assets", "index.html", "compare.md", "compare.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    (page / "notes.txt").write_text("mine")
    assert "no comparison wrote" in call("compare", MINI, MINI, "--task", "parus", "--output", page, code=2)
    assert (page / "notes.txt").read_text() == "mine"
