"""The command line: what it prints, its exit codes, and one clear sentence for each thing that can be wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.commands import call
from support.hub import Hub


def run_args(model: Path, output: Path, *more: object) -> list[object]:
    return ["run", "--model", model, "--data", "mini", "--engine", "hf", "--output", output, *more]


def test_run_show_list_rescore(tiny_chat: Path, tmp_path: Path) -> None:
    out = call(*run_args(tiny_chat, tmp_path, "--tasks", "rwsd,rucola", "--limit", 6))
    assert "Mean of 2 of 17 tasks" in out
    run = next(tmp_path.iterdir())
    assert run.name in out.replace("\n", "")
    shown = call("show", run)
    assert "rucola" in shown
    assert "acc + mcc" in shown
    sample = json.loads(next((run / "samples" / "rwsd.jsonl").open(encoding="utf-8")))
    panel = call("show", run, "--task", "rwsd", "--sample", sample["id"])
    assert "gold" in panel
    assert "log-probabilities" in panel
    assert json.loads(call("show", run, "--json"))["scores"]["tasks"]["rwsd"]["documents"] == 6
    assert run.name[:20] in call("list", "runs", "--output", tmp_path)
    assert "complete" in call("list", "runs", "--output", tmp_path)
    assert "rucola" in call("rescore", run)
    assert "has no sample 99" in call("show", run, "--task", "rwsd", "--sample", 99, code=2)
    assert "Unknown task of this run 'rwds'. Did you mean 'rwsd'?" in call("show", run, "--task", "rwds", code=2)


def test_json_output_is_json(tiny_chat: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from darumeru.cli import main; main()"]
    args = run_args(tiny_chat, tmp_path, "--tasks", "rwsd", "--limit", 3, "--json")
    done = subprocess.run([*command, *map(str, args)], capture_output=True, text=True, check=True)
    scores = json.loads(done.stdout)
    assert scores["tasks"]["rwsd"]["documents"] == 3
    assert "Loading weights" not in done.stderr  # transformers' own bar, which would tear ours apart


def test_a_run_is_tracked_and_no_tracker_fails_it(
    tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    args = run_args(tiny_chat, tmp_path / "runs", "--tasks", "rwsd", "--limit", 3, "--track", "tensorboard")
    assert f"Tracked by tensorboard: tensorboard --logdir {tmp_path / 'events'}" in call(*args)
    (run,) = (tmp_path / "runs").iterdir()
    assert list((tmp_path / "events" / run.name).glob("events.*"))
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file"))
    said = call(*args)  # the finished run once more
    assert "Not tracked by tensorboard (NotADirectoryError" in said
    assert "Mean of 1 of 17 tasks" in said
    none = run_args(tmp_path / "no-model", tmp_path / "runs", "--track", "tensorbord")
    assert "Unknown tracker 'tensorbord'. Did you mean 'tensorboard'" in call(*none, code=2)
    assert "leave out one of them" in call(*args, "--until", "micro_avg ± 0.1", code=2)


def test_lists() -> None:
    tasks = {line.split()[0]: line for line in call("list", "tasks").splitlines() if line.split()}
    assert "rows of the data set" in tasks["cp_para_ru"]
    assert "task file" in tasks["mmlu_ru"]
    suites = call("list", "suites")
    assert "DaruCopy (RU)" in suites
    assert "darumeru-extended" in suites
    assert "Unknown list 'task'. Did you mean 'tasks'?" in call("list", "task", code=2)


def test_dry_run_computes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    out = call(*run_args(tiny_base, tmp_path / "runs", "--tasks", "parus,cp_sent_ru", "--dry-run", "--num-fewshot", 2))
    assert "Query:" in out
    assert "foundation, 2-shot" in out
    assert "56" in out, "28 pairs in two orders"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "darumer"], "Unknown suite 'darumer'. Did you mean 'darumeru'?"),
        (["--tasks", "parus,rcbb"], "Unknown task 'rcbb'. Did you mean 'rcb'?"),
        (["--engine", "vlm"], "Unknown engine 'vlm'. Did you mean 'vllm'?"),
        (["--data", "nowhere"], "Unknown bundle 'nowhere'"),
        (["--mode", "chat"], "--mode: 'chat' is not possible"),
        (["--dtype", "int8"], "--dtype: 'int8' is not possible"),
        (["--limit", "0"], "--limit: 0 is not possible"),
        (["--model-args", "x"], "'x' is not of the form key=value"),
        (["--model-args", "y=1"], "Unknown --model-args key for the hf engine 'y'"),
        (["--wording", "no.yaml"], "'no.yaml' does not exist"),
        (["--include-path", "no"], "--include-path 'no' is no folder"),
        (["--lock", "l.json"], "needs --data hub"),
    ],
)
def test_wrong_options_say_what_is_possible(args: list[str], message: str, tiny_chat: Path, tmp_path: Path) -> None:
    out = call(*run_args(tiny_chat, tmp_path, "--tasks", "rwsd", *args), code=2)
    assert message in out.replace("\n", " "), out


def broken(model: Path, folder: Path, fault: str) -> Path:
    copy = shutil.copytree(model, folder / fault)
    weights = copy / "model.safetensors"
    if fault == "no-config":
        (copy / "config.json").unlink()
    elif fault == "no-weights":
        weights.unlink()
    elif fault == "pickle":
        weights.rename(copy / "pytorch_model.bin")
    elif fault == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif fault == "garbage":
        weights.write_bytes(b"not a model")
    elif fault == "no-tokenizer":
        (copy / "tokenizer.json").unlink()
    elif fault == "remote-code":
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}))
    elif fault == "missing-shard":
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no-config", "has no config.json"),
        ("no-weights", "has no weights (*.safetensors)"),
        ("pickle", "only pickle weights"),
        ("truncated", "is truncated"),
        ("garbage", "no whole safetensors file"),
        ("no-tokenizer", "has no tokenizer"),
        ("remote-code", "--trust-remote-code"),
        ("missing-shard", "'model-00001-of-00002.safetensors' is missing"),
    ],
)
def test_broken_model_folders(fault: str, message: str, tiny_chat: Path, tmp_path: Path) -> None:
    out = call(*run_args(broken(tiny_chat, tmp_path, fault), tmp_path / "runs"), code=2)
    assert message in out.replace("\n", " "), out
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in call(*run_args(tmp_path / "no-model", tmp_path), code=2)
    assert "is a file" in call(*run_args(Path(__file__), tmp_path), code=2)


def test_the_hub_that_cannot_be_reached(tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub().serves(monkeypatch, tmp_path / "home", offline=True)
    out = call("run", "--model", tiny_chat, "--engine", "hf", "--tasks", "rwsd", "--output", tmp_path, code=1)
    assert "--data mini" in out
    assert "'owner/name' is no folder here" in call("run", "--model", "owner/name", "--data", "mini", code=1)


def test_a_bundle_that_lacks_a_task_or_a_field(tiny_chat: Path, tmp_path: Path) -> None:
    from darumeru.data.bundle import MINI

    bundle = tmp_path / "bundle"
    shutil.copytree(MINI / "rwsd", bundle / "rwsd")
    args = ["run", "--model", tiny_chat, "--engine", "hf", "--output", tmp_path / "runs", "--data", bundle]
    out = call(*args, code=2)
    assert "Bundle 'bundle' has no data set 'rummlu'; it has: rwsd" in out.replace("\n", " ")
    rows = [json.loads(line) for line in (bundle / "rwsd" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    del rows[4]["inputs"]["span1_text"]
    (bundle / "rwsd" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    out = call(*args, "--tasks", "rwsd", code=2).replace("\n", " ")
    assert "data set 'rwsd', split 'test', row 5: field 'span1_text' is missing" in out
    (bundle / "rwsd" / "test.jsonl").write_text("{\n", encoding="utf-8")
    assert "line 1: not valid JSON" in call(*args, "--tasks", "rwsd", code=2)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom darumeru.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'transformers', 'vllm', 'datasets', 'lm_eval', 'pandas', 'sklearn', 'numpy', 'scipy', 'altair', 'jinja2'}))"
    )
    for args in (["--help"], ["run", "--help"], ["leaderboard", "--help"], ["show", "nowhere"]):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout
