"""Runs in the formats of other tools, and other tools' results as runs."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from darumeru.errors import UserError
from darumeru.evaluation import rescore
from darumeru.exports import as_text, export, format_names
from darumeru.files import file_sha256
from darumeru.imports import import_run
from darumeru.leaderboard import build, compare
from darumeru.record.run import Run, load_run
from support.commands import call
from support.synthetic import edited, make_run

RECORD = Path(__file__).parents[2] / "leaderboards" / "runs" / "smollm2-135m-instruct-mini"
"""A real run of all 17 tasks on the mini bundle."""
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def lm_eval_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm-eval")
    export(RECORD, "lm-eval", folder, name=MODEL)
    return folder


@pytest.fixture(scope="module")
def eee_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eee")
    export(RECORD, "every-eval-ever", folder, name=MODEL)
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stock lm-eval writes of a task of ours and one of its own kind, answered by its model that answers anything."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.dummy import DummyLM
    from lm_eval.tasks import TaskManager

    from darumeru.task.suite import TASKS

    folder = tmp_path_factory.mktemp("stock")
    rows = [
        {"q": f"{a} + {b} =", "choices": [str(a + b), str(a * b + 9)], "answer": 0} for a in range(1, 4) for b in (2, 5)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks = folder / "tasks"
    shutil.copytree(TASKS, tasks)
    own = {
        "task": "sums", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "sums.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "choices",
        "doc_to_target": "answer", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (tasks / "sums.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    manager = TaskManager(include_path=str(tasks), include_defaults=False, metadata={"data": "mini"})
    results = simple_evaluate(
        DummyLM(), tasks=["parus", "rcb", "cp_sent_ru", "sums"], task_manager=manager, bootstrap_iters=0, limit=None
    )
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    tracker.general_config_tracker.log_experiment_args("dummy", "pretrained=team/model", None, None, False)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results, samples)
    for task in results["configs"]:
        tracker.save_results_samples(task, samples[task])
    return folder / "out"


def on_the_hub(run: Path, copy: Path, tasks: tuple[str, ...] | None = None) -> Path:
    """A copy of a run whose tasks, or some of them, read a data set of the hub."""
    shutil.copytree(run, copy)

    def moved(header: dict[str, Any]) -> None:
        for name in tasks or header["tasks"]:
            source = {"source": "hub:owner/rows", "repository": "owner/rows", "revision": "5" * 40}
            next(iter(header["tasks"][name]["data"].values())).update(source)

    return edited(copy, "header.json", moved)


def results_file(folder: Path) -> Path:
    (file,) = folder.rglob("results_*.json")
    return file


def scores_of(run: Run) -> dict[str, tuple[Any, ...]]:
    scores = run.scores
    named = {**scores.tasks, **scores.groups, "suite": scores.suite}
    found = {}
    for name, score in named.items():
        one = getattr(score, "score", score)
        found[name] = (one.value, one.low, one.high)
        found |= {f"{name}/{m}": (s.value, s.low, s.high) for m, s in getattr(score, "metrics", {}).items()}
    return found


# -- exports ----------------------------------------------------------------------------------------------------------


def test_every_format_has_its_file() -> None:
    assert {"badge", "every-eval-ever", "hf-eval-results", "latex", "lm-eval", "markdown", "model-index"} <= set(
        format_names()
    )


def test_lm_eval_reads_what_is_written_for_it(lm_eval_files: Path, tmp_path: Path) -> None:
    from datasets import load_dataset
    from lm_eval.utils import (
        get_file_datetime,
        get_file_task_name,
        get_results_filenames,
        get_sample_results_filenames,
        make_table,
    )

    files = [str(file) for file in lm_eval_files.rglob("*") if file.is_file()]
    (results,) = get_results_filenames(files)
    samples = get_sample_results_filenames(files)
    stated = load_run(RECORD).scores
    assert {get_file_task_name(Path(file).name) for file in samples} == set(stated.tasks)
    assert {get_file_datetime(file) for file in samples} == {get_file_datetime(results).removesuffix(".json")}
    content = json.loads(Path(results).read_text(encoding="utf-8"))
    table = make_table(content)
    assert f"{stated.tasks['rummlu'].score.value:.4f}" in table
    for task in ("parus", "multiq", "cp_sent_ru"):
        (file,) = (f for f in samples if get_file_task_name(Path(f).name) == task)
        rows = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path))
        assert len(rows) == stated.tasks[task].documents
        mean = sum(rows["score"]) / len(rows)
        assert mean == pytest.approx(stated.tasks[task].score.value)


def test_the_keys_are_those_of_stock_lm_eval(lm_eval_files: Path, stock: Path) -> None:
    def keys(folder: Path, task: str) -> set[str]:
        (file,) = folder.rglob(f"samples_{task}_*.jsonl")
        return set(json.loads(file.read_text(encoding="utf-8").splitlines()[0]))

    for task in ("parus", "rcb"):
        assert keys(lm_eval_files, task) == keys(stock, task)
    ours, theirs = (json.loads(results_file(f).read_text(encoding="utf-8")) for f in (lm_eval_files, stock))
    surroundings = {"pretty_env_info", "upper_git_hash", "eot_token_id"}
    lacking = {key for key in set(theirs) - set(ours) if not key.startswith("tokenizer_")}
    assert lacking <= surroundings
    assert set(theirs["results"]["rcb"]) == set(ours["results"]["rcb"])
    assert {"model", "model_args", "limit", "gen_kwargs", "random_seed"} <= set(ours["config"])


def test_choices_are_requests_for_each_label(lm_eval_files: Path) -> None:
    (file,) = lm_eval_files.rglob("samples_parus_*.jsonl")
    line = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    sample = next(iter(load_run(RECORD).samples("parus")))
    assert [a["arg_1"] for a in line["arguments"].values()] == ["1", "2", "1", "2"]
    assert [float(r[0][0]) for r in line["resps"]] == [x for r in sample.requests for x in r.answer.logprobs]
    assert line["arguments"]["gen_args_2"]["arg_0"] == sample.requests[1].prompt


def test_hub_results_are_read_back(tmp_path: Path) -> None:
    from huggingface_hub import EvalResultEntry, parse_eval_result_entries

    (file,) = export(on_the_hub(RECORD, tmp_path / "run"), "hf-eval-results", tmp_path)
    assert file == tmp_path / ".eval_results" / "darumeru.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
    stated = load_run(RECORD).scores.tasks
    assert all(isinstance(entry, EvalResultEntry) for entry in entries)
    assert {e.task_id: e.value for e in entries} == {
        n: pytest.approx(t.score.value, abs=1e-6) for n, t in stated.items()
    }
    assert {(e.dataset_id, e.dataset_revision) for e in entries} == {("owner/rows", "5" * 40)}
    notes = {e.task_id: e.notes or "" for e in entries}
    assert "95 % interval 0.1268 to 0.4336; 28 documents" in notes["rummlu"]
    assert "data hub" in notes["rummlu"]


def test_the_hub_is_told_nothing_of_data_that_were_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The mini bundle's 28 rows are no result on a data set of the hub, nor are 5 of its documents."""
    said = call("export", RECORD, "--format", "hf-eval-results", code=2)
    assert "whole data sets of the hub" in said
    assert "read other data (mini)" in said
    mixed = on_the_hub(RECORD, tmp_path / "mixed", ("parus", "rcb"))
    edited(mixed, "header.json", lambda h: h["tasks"]["rcb"].update(documents=5, of=28))
    (entry,) = yaml.safe_load(as_text(mixed, "hf-eval-results"))
    assert entry["dataset"] == {"id": "owner/rows", "task_id": "parus", "revision": "5" * 40}
    (told,) = caplog.messages
    assert re.search(r"Left out of the hub's results.*rummlu.*read other data.*of rcb only a part", told)
    assert "parus" not in told


@pytest.mark.parametrize("format_", ["hf-eval-results", "lm-eval", "every-eval-ever", "inspect"])
def test_exports_state_the_version_of_the_task_that_was_asked(format_: str, tmp_path: Path) -> None:
    if format_ == "inspect":
        pytest.importorskip("inspect_ai")
    run = on_the_hub(RECORD, tmp_path / "run")
    edited(run, "header.json", lambda h: [task.update(version="0.9") for task in h["tasks"].values()])
    files = export(run, format_, tmp_path / "out", name="team/m")
    if format_ == "inspect":
        from inspect_ai.log import read_eval_log

        assert read_eval_log(str(files[0])).eval.task_version == "0.9"
        return
    if format_ == "hf-eval-results":
        assert "parus of darumeru 0.9;" in files[0].read_text(encoding="utf-8")
        return
    back = import_run(tmp_path / "out", tmp_path / "runs")
    assert {task.version for task in back.header.tasks.values()} == {"0.9"}


def test_every_eval_ever_accepts_a_run(eee_files: Path) -> None:
    pytest.importorskip("every_eval_ever", reason="pip install --no-deps every-eval-ever (.ci/run)")
    from every_eval_ever.validator.validate import main

    assert main([str(file) for file in eee_files.rglob("*") if file.is_file()]) == 0, "0 is: no error, no warning"


def test_every_eval_ever_has_the_intervals(eee_files: Path) -> None:
    (file,) = (f for f in eee_files.rglob("*.json"))
    log = json.loads(file.read_text(encoding="utf-8"))
    (samples,) = eee_files.rglob("*_samples.jsonl")
    assert log["detailed_evaluation_results"]["checksum"] == hashlib.sha256(samples.read_bytes()).hexdigest()
    assert log["detailed_evaluation_results"]["file_path"] == samples.relative_to(eee_files).as_posix()
    found = {r["evaluation_result_id"]: r for r in log["evaluation_results"]}
    stated = load_run(RECORD).scores
    interval = found["rummlu/acc"]["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == (
        stated.tasks["rummlu"].score.low,
        stated.tasks["rummlu"].score.high,
    )
    assert found["darumeru/mean"]["score_details"]["score"] == stated.suite.value


def test_exports_that_cannot_be(tmp_path: Path) -> None:
    assert "name a folder for them with --output" in call("export", RECORD, "--format", "lm-eval", code=2)
    assert "--name DEVELOPER/MODEL" in call(
        "export", RECORD, "--format", "every-eval-ever", "--output", tmp_path, code=2
    )
    assert list(tmp_path.iterdir()) == [], "nothing is half-written"
    assert "Did you mean 'lm-eval'" in call("export", RECORD, "--format", "lmeval", code=2)
    unfinished = make_run(tmp_path / "part", "part", complete=False)
    assert "is not finished" in call("export", unfinished, "--format", "lm-eval", "--output", tmp_path / "x", code=2)
    (tmp_path / "file").write_text("")
    assert "is a file" in call("export", RECORD, "--format", "lm-eval", "--output", tmp_path / "file", code=2)


def test_a_changed_record_is_not_exported(tmp_path: Path) -> None:
    copy = shutil.copytree(RECORD, tmp_path / "run")
    file = copy / "samples" / "parus.jsonl"
    file.write_text(file.read_text(encoding="utf-8").replace('"acc": 0.0', '"acc": 1.0'), encoding="utf-8")
    assert "is not what the finished run wrote" in call(
        "export", copy, "--format", "lm-eval", "--output", tmp_path / "out", code=1
    )
    assert not list((tmp_path / "out").iterdir())


def test_text_formats_can_be_files_too(tmp_path: Path) -> None:
    (file,) = export(RECORD, "markdown", tmp_path)
    assert file.read_text(encoding="utf-8") == as_text(RECORD, "markdown")


# -- there and back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", ["lm_eval_files", "eee_files"])
def test_there_and_back_gives_the_same_scores(files: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run = import_run(request.getfixturevalue(files), tmp_path)
    assert scores_of(run) == scores_of(load_run(RECORD)), "values and intervals, to the last bit"
    facts = run.header.imported
    assert facts is not None
    expected = {t for t in run.tasks if t.startswith("cp_")} if files == "lm_eval_files" else set()
    assert set(facts.stated) == expected, "lm-eval's files have no tokens, which copies are measured in"
    before = file_sha256(run.path / "manifest.json")
    assert import_run(request.getfixturevalue(files), tmp_path).path == run.path
    assert file_sha256(run.path / "manifest.json") == before, "the same file is the same run"


def drawn_twice(folder: Path) -> Path:
    """The record with two answers to each question of one task, and a thought of another that did not end."""
    copy = shutil.copytree(RECORD, folder)
    for task in ("multiq", "parus"):
        file = copy / "samples" / f"{task}.jsonl"
        rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
        if task == "multiq":
            for row in rows:
                gold = row["gold"][0] if isinstance(row["gold"], list) else row["gold"]
                again = row["requests"][0]["answer"] | {"text": str(gold) if row["id"] % 2 else "нет"}
                row["requests"].append(row["requests"][0] | {"repeat": 1, "answer": again})
        else:
            rows[0]["requests"][0]["answer"] = {"unfinished": True, "thought_tokens": [1, 2]}
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    header = json.loads((copy / "header.json").read_text(encoding="utf-8"))
    header["generation"] = {"do_sample": True, "temperature": 0.7, "repeats": 2}
    (copy / "header.json").write_text(json.dumps(header), encoding="utf-8")
    rescore(load_run(copy))
    return copy


@pytest.mark.parametrize("format_", ["lm-eval", "every-eval-ever"])
def test_repeats_and_unfinished_thoughts_come_back(format_: str, tmp_path: Path) -> None:
    record = load_run(drawn_twice(tmp_path / "record"))
    export(record.path, format_, tmp_path / "out", name=MODEL)
    run = import_run(tmp_path / "out", tmp_path / "runs")
    assert scores_of(run) == scores_of(record)
    assert run.scores.tasks["multiq"].repeats == record.scores.tasks["multiq"].repeats
    assert run.header.how_drawn == "temperature 0.7"
    first = next(iter(run.samples("parus")))
    assert first.requests[0].answer.unfinished
    assert first.pred == ""


def test_two_runs_are_compared_by_documents(lm_eval_files: Path, tmp_path: Path) -> None:
    run = import_run(lm_eval_files, tmp_path)
    found = compare(load_run(RECORD), run, tasks=["rummlu"])
    (shown,) = (one for one in found.lines if one.column == "rummlu")
    assert (shown.documents, shown.b - shown.a) == (28, 0)
    assert not [remark for remark in found.remarks if "different data" in remark]


def test_a_board_pairs_what_was_imported(lm_eval_files: Path, stock: Path, tmp_path: Path) -> None:
    site = build(
        [RECORD, lm_eval_files, stock],
        tmp_path / "site",
        baseline="SmolLM2-135M-Instruct",
        published=False,
        samples=True,
    )
    assert site.board.problems == []
    rows = {row.entry.tool + "/" + row.entry.stated.model.name: row for row in site.board.rows}
    ours, back, theirs = (
        rows["/SmolLM2-135M-Instruct"],
        rows[f"lm-eval 0.4.13/{MODEL}"],
        rows["lm-eval 0.4.13/team/model"],
    )
    assert ours.pool == back.pool
    assert ours.rank == back.rank == 1
    assert back.deltas["suite"].value == 0
    assert "imported" in {badge.kind for badge in back.badges}
    assert theirs.pool == "incomplete"
    assert theirs.deltas["parus"].significant is not None, "the documents are the same, so the difference was tested"
    assert site.board.other_tasks == ["sums"]
    page = (site.path / "index.html").read_text(encoding="utf-8")
    assert "team/model" in page
    assert (site.path / "table.md").read_text(encoding="utf-8").count("| sums |") == 1
    value, low, high = theirs.entry.scores["sums"]
    assert (low is not None and high is not None and low < value < high) or value in (0, 1)
    table = json.loads((site.path / "table.json").read_text(encoding="utf-8"))
    imported = next(row for row in table["rows"] if row["name"] == "team/model")
    assert imported["scores"]["sums"]["value"] == value


def test_stock_lm_eval_is_scored_anew(stock: Path, tmp_path: Path) -> None:
    run = import_run(stock, tmp_path)
    theirs = json.loads(results_file(stock).read_text(encoding="utf-8"))["results"]
    for task in ("parus", "rcb"):
        assert run.scores.tasks[task].score.value == pytest.approx(theirs[task]["score,none"])
    assert run.scores.tasks["rcb"].metrics["f1_macro"].value == pytest.approx(theirs["rcb"]["f1_macro,none"])
    assert run.scores.tasks["sums"].primary == ["acc"]
    for sample in run.samples("sums"):
        logs = sample.requests[0].answer.logprobs
        assert sample.pred == sample.doc["choices"][logs.index(max(logs))]
    assert run.scores.tasks["sums"].metrics["acc_norm"].value == pytest.approx(theirs["sums"]["acc_norm,none"])
    assert "counts the model's own tokens" in run.scores.failed["cp_sent_ru"]
    assert run.header.imported is not None and run.header.imported.stated == ["sums"]
    assert run.header.mode == "foundation"
    assert "imported" not in call("show", run.path, "--task", "sums")
    assert "was imported" in call("export", run.path, "--format", "lm-eval", "--output", tmp_path / "x", code=2)
    assert "was imported" in call("rescore", run.path, code=2)


# -- foreign files that are not as they should be ------------------------------------------------------------------------


def line(i: int, **more: Any) -> dict[str, Any]:
    return {
        "doc_id": i, "doc": {"q": f"{i}?"}, "target": "a", "arguments": {"gen_args_0": {"arg_0": f"{i}?", "arg_1": {}}},
        "resps": [["a"]], "filtered_resps": ["a"], "filter": "none", "metrics": ["em"], "em": float(i % 2),
    } | more  # fmt: skip


def foreign(folder: Path, lines: list[dict[str, Any]] | str | None, task: str = "quiz", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "results": {task: {"alias": task, "em,none": 0.5}}, "configs": {task: {"task": task}}, "versions": {task: 1.0},
        "n-shot": {task: 0}, "model_source": "hf", "model_name": "team/model", "lm_eval_version": "0.4.13",
    } | more  # fmt: skip
    (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps(content), encoding="utf-8")
    if lines is not None:
        text = lines if isinstance(lines, str) else "".join(json.dumps(row) + "\n" for row in lines)
        (folder / f"samples_{task}_2026-01-01T00-00-00.jsonl").write_text(text, encoding="utf-8")
    return folder


GOOD = [line(i) for i in range(6)]


def test_a_foreign_task_has_an_interval(tmp_path: Path) -> None:
    run = import_run(foreign(tmp_path / "in", GOOD), tmp_path / "runs")
    score = run.scores.tasks["quiz"].score
    assert (score.value, score.method) == (0.5, "wilson")
    z = 1.959963984540054
    half = z / (1 + z * z / 6) * (0.25 / 6 + z * z / (4 * 36)) ** 0.5
    assert (score.low, score.high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))


def test_filters_are_metrics(tmp_path: Path) -> None:
    rows = [line(i, filter=f, em=v) for i in range(4) for f, v in (("strict", 0.0), ("flexible", 1.0))]
    results = {"quiz": {"em,strict": 0.0, "em,flexible": 1.0}}
    run = import_run(foreign(tmp_path / "in", rows, results=results), tmp_path / "runs")
    found = run.scores.tasks["quiz"]
    assert {name: score.value for name, score in found.metrics.items()} == {"em,strict": 0.0, "em,flexible": 1.0}
    assert found.documents == 4


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no samples": (lambda p: foreign(p, None), "no samples beside it .*--log_samples"),
    "nan": (lambda p: foreign(p, [*GOOD, line(6, em=float("nan"))]), "line 7: metric 'em' is nan, not a finite number"),
    "twice": (lambda p: foreign(p, [*GOOD, line(3)]), "line 7: document 3 is there twice"),
    "no json": (lambda p: foreign(p, '{"doc_id": 0'), "line 1: not valid JSON"),
    "empty": (lambda p: foreign(p, ""), "is empty"),
    "other keys": (
        lambda p: foreign(p, [{"id": 1}]),
        "line 1 is no samples file of lm-eval 0.4 .doc_id: Field required",
    ),
    "answers": (lambda p: foreign(p, [line(0, resps=[["a"], ["b"]])]), "1 requests have 2 responses"),
    "response": (lambda p: foreign(p, [line(0, resps=[[{"x": 1}]])]), "neither a text nor a log-probability"),
    "no number": (lambda p: foreign(p, [line(0, em="yes")]), "none of its metrics is a number for each document"),
    "no mean": (lambda p: foreign(p, GOOD, results={"quiz": {"em,none": 0.9}}), "is no mean of the documents' values"),
    "configs": (lambda p: foreign(p, GOOD, configs=[1]), "is no results file of lm-eval 0.4 .configs"),
    "path": (lambda p: foreign(p, None, task="../../quiz", configs={"../../quiz": {}}), "no samples beside it"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_imported_is_said_in_a_sentence(fault: str, tmp_path: Path) -> None:
    make, message = FAULTS[fault]
    make(tmp_path / "in")
    with pytest.raises(UserError, match=message):
        import_run(tmp_path / "in", tmp_path / "runs")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir()), "nothing is half-written"


def test_a_board_names_what_it_cannot_import(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", "ours")
    foreign(tmp_path / "bad", [*GOOD, line(3)])
    foreign(tmp_path / "good", GOOD)
    built = build([tmp_path / "runs", tmp_path / "bad", tmp_path / "good"], tmp_path / "site", samples=True)
    (problem,) = built.board.problems
    assert "is there twice" in problem.reason
    assert [row.entry.name for row in built.board.imported] == ["team/model"]


def test_hostile_names_stay_in_their_folder(tmp_path: Path) -> None:
    nasty = "<img src=x onerror=alert(1)>"
    rows = [line(i, doc={"q": nasty}, target=nasty) for i in range(3)]
    folder = foreign(tmp_path / "in", rows, task="quiz", model_name=f"team/{nasty}", results={"quiz": {}})
    samples = next(folder.glob("samples_*"))
    samples.rename(folder / f"samples_{nasty}_2026-01-01T00-00-00.jsonl".replace("/", "_"))
    content = json.loads(results_file(folder).read_text(encoding="utf-8"))
    content["configs"] = {nasty: {}}
    results_file(folder).write_text(json.dumps(content), encoding="utf-8")
    built = build([folder], tmp_path / "site", published=False)
    (row,) = built.board.rows
    assert all(task.isascii() and "<" not in task for task in row.entry.tasks)
    for page in built.path.rglob("*.html"):
        assert "<img src=x" not in page.read_text(encoding="utf-8")


def test_a_task_that_only_shares_our_name_is_not_ours(tmp_path: Path) -> None:
    run = import_run(
        foreign(tmp_path / "in", GOOD, task="parus", results={"parus": {"em,none": 0.5}}), tmp_path / "runs"
    )
    assert run.tasks == ["lm-eval.parus"]


@pytest.fixture
def eee(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    def write(rows: list[dict[str, Any]] | None, **more: Any) -> Path:
        name = "11111111-2222-4333-8444-555555555555"
        log = {
            "schema_version": "0.2.2", "eval_library": {"name": "inspect_ai", "version": "0.3"},
            "model_info": {"name": "m", "id": "team/m"},
            "evaluation_results": [
                {"evaluation_name": "quiz", "source_data": {"dataset_name": "quiz", "source_type": "other"},
                 "metric_config": {"metric_name": "accuracy", "lower_is_better": False}, "score_details": {"score": 0.5}}
            ],
        } | more  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(log), encoding="utf-8")
        if rows is not None:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / f"{name}_samples.jsonl").write_text(text, encoding="utf-8")
        return tmp_path / f"{name}.json"

    yield write


def instance(i: int, **more: Any) -> dict[str, Any]:
    return {
        "evaluation_name": "quiz", "sample_id": f"q{i}", "input": {"raw": f"{i}?", "reference": ["a"]},
        "output": {"raw": ["a"]}, "evaluation": {"score": float(i % 2), "is_correct": bool(i % 2)},
    } | more  # fmt: skip


def test_records_of_other_tools_in_the_collection(eee: Callable[..., Path], tmp_path: Path) -> None:
    run = import_run(eee([instance(i) for i in range(6)]), tmp_path / "runs")
    assert run.scores.tasks["quiz"].score.value == 0.5
    assert run.scores.tasks["quiz"].score.low is not None
    with pytest.raises(UserError, match=r"line 3: sample 'q1' of 'quiz' is there twice"):
        import_run(eee([instance(0), instance(1), instance(1)]), tmp_path / "runs")
    with pytest.raises(UserError, match=r"line 1: the score is nan"):
        import_run(eee([instance(0, evaluation={"score": float("nan"), "is_correct": False})]), tmp_path / "runs")
    with pytest.raises(UserError, match=r"is no record of Every Eval Ever \(model_info.id: Field required"):
        import_run(eee([instance(0)], model_info={"name": "m"}), tmp_path / "runs")
    with pytest.raises(UserError, match=r"line 1: 'metadata.sample' is no sample of a record"):
        import_run(eee([instance(0, metadata={"sample": {"requests": [{}]}})]), tmp_path / "runs")


def test_scores_without_samples_are_refused(eee: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="scores alone cannot be imported"):
        import_run(eee(None), tmp_path / "runs")


def test_the_command_shows_what_it_made(tmp_path: Path) -> None:
    said = call("import-run", foreign(tmp_path / "in", GOOD), "--output", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name in said.replace("\n", "")
    assert "does not exist" in call("import-run", tmp_path / "nothing", code=2)
    (tmp_path / "empty").mkdir()
    assert "holds no results that can be imported" in call("import-run", tmp_path / "empty", code=2)
