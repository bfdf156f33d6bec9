"""`darumeru watch`: each whole checkpoint exactly once, whatever is killed, half-written, broken or deleted."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import UserError
from darumeru.evaluation import execute, prepare
from darumeru.record.run import find_runs
from darumeru.watch import watch, watcher
from darumeru.watch.checkpoints import Checkpoint, keep, look
from darumeru.watch.process import device_of
from darumeru.watch.watcher import Outcome
from support.commands import call
from support.tiny import KnowingEngine

TASKS = ("cp_sent_ru", "rwsd_tenth")


def checkpoint(base: Path, folder: Path, step: int, max_steps: int = 1000, age: float = 100.0, **state: Any) -> Path:
    """A checkpoint as a Trainer leaves it; its weights differ with the step."""
    from safetensors.torch import load_file, save_file

    path = folder / f"checkpoint-{step}"
    shutil.copytree(base, path)
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] += step + state.pop("weights", 0)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    told = {"global_step": step, "max_steps": max_steps, "num_input_tokens_seen": step * 10, "log_history": [], **state}
    (path / "trainer_state.json").write_text(json.dumps(told))
    aged(path, age)
    return path


def aged(path: Path, age: float) -> None:
    for file in path.iterdir():
        os.utime(file, (time.time() - age, time.time() - age))


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Evaluations in this process with an engine that knows the answers, worse the further the training is; their steps."""
    steps: list[int] = []

    def run(self: Any, found: Checkpoint) -> dict[str, Any]:
        def engine(plan: Any) -> KnowingEngine:
            steps.append(found.step)
            return KnowingEngine(plan, spoil=found.step / 1000)

        done = execute(prepare(self._asked_of(found)), self.output, open_engine=engine)
        return {"run": str(done.path)}

    monkeypatch.setattr(watcher._Watch, "_run", run)
    return steps


def once(folder: Path, **more: Any) -> Outcome:
    return watch(
        folder, once=True, output=folder.parent / "runs", poll=0.01, settle=0.0,
        **{"data": "mini", "engine": "hf", "tasks": TASKS, "num_fewshot": 0, **more},
    )  # fmt: skip


def test_each_checkpoint_once_oldest_first_and_again_nothing(
    tiny_base: Path, tmp_path: Path, evaluated: list[int]
) -> None:
    for step in (100, 20, 300):
        checkpoint(tiny_base, tmp_path / "t", step)
    outcome = once(tmp_path / "t")
    assert evaluated == [20, 100, 300]
    assert [p.step for p in outcome.points] == [20, 100, 300]
    assert [p.tokens_seen for p in outcome.points] == [200, 1000, 3000]
    values = [p.values["cp_sent_ru"] for p in outcome.points]
    assert values == sorted(values, reverse=True)
    header = find_runs(tmp_path / "runs")[0].header
    assert header["training"] == {"run": "t", "step": 100, "tokens_seen": 1000} or header["training"]["step"] in (
        20,
        300,
    )
    assert header["model"]["name"] == "t"
    again = once(tmp_path / "t")
    assert evaluated == [20, 100, 300], "a complete record is enough"
    assert again.points == outcome.points
    checkpoint(tiny_base, tmp_path / "t", 200)
    once(tmp_path / "t")
    assert evaluated[3:] == [200]
    once(tmp_path / "t", limit=5, newest_first=True)
    assert evaluated[4:] == [300, 200, 100, 20], "other settings are other runs"


def test_a_half_written_checkpoint_is_left_until_it_is_whole(
    tiny_base: Path, tmp_path: Path, evaluated: list[int]
) -> None:
    checkpoint(tiny_base, tmp_path / "t", 10)
    half = checkpoint(tiny_base, tmp_path / "t", 20)
    state = (half / "trainer_state.json").read_text()
    for rest in (None, state[:20]):
        (half / "trainer_state.json").unlink(missing_ok=True)
        if rest:
            (half / "trainer_state.json").write_text(rest)
        outcome = once(tmp_path / "t")
        assert evaluated == [10]
        assert "trainer_state.json is not" in outcome.unfinished[20]
        assert not outcome.failed
    (half / "trainer_state.json").write_text(state)
    assert not once(tmp_path / "t").unfinished
    assert evaluated == [10, 20]


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        (lambda p: None, "whole", ""),
        (lambda p: (p / "trainer_state.json").unlink(), "unfinished", "not written yet"),
        (lambda p: (p / "trainer_state.json").write_text("{"), "unfinished", "not readable yet"),
        (lambda p: (p / "trainer_state.json").write_text("[]"), "unfinished", "not readable yet"),
        (lambda p: (p / "trainer_state.json").write_text('{"global_step": 8}'), "broken", "says step 8"),
        (lambda p: (p / "config.json").unlink(), "broken", "has no config.json"),
        (lambda p: (p / "config.json").write_text('{"a'), "broken", "not valid JSON"),
        (lambda p: cut(p / "model.safetensors"), "broken", "is truncated"),
        (lambda p: (p / "model.safetensors").unlink(), "broken", "has no weights"),
        (
            lambda p: (p / "model.safetensors").rename(p / "model-00001-of-00002.safetensors") and index(p),
            "broken",
            "'model-00002-of-00002.safetensors' is missing",
        ),
        (lambda p: (p / "model.safetensors").rename(p / "pytorch_model_fsdp_0"), "broken", "accelerate merge-weights"),
        (lambda p: os.utime(p / "optimizer.pt"), "settling", "changed a moment ago"),
        (lambda p: shutil.rmtree(p), "gone", "deleted"),
    ],
)
def test_what_is_whole(fault: Callable[[Path], Any], state: str, reason: str, tiny_base: Path, tmp_path: Path) -> None:
    path = checkpoint(tiny_base, tmp_path, 7)
    (path / "optimizer.pt").touch()
    aged(path, 100)
    fault(path)
    if path.exists() and state != "settling":
        aged(path, 100)
    found = look(path, 7, settle=5.0)
    assert (found.state, reason in found.reason) == (state, True), found.reason


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def index(path: Path) -> None:
    shards = {f"x{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


def test_a_broken_checkpoint_is_tried_again_and_then_left_out(
    tiny_base: Path, tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20, 30):
        checkpoint(tiny_base, tmp_path / "t", step)
    cut(tmp_path / "t" / "checkpoint-10" / "model.safetensors")
    whole, tries = watcher._Watch._run, []

    def run(self: Any, found: Checkpoint) -> dict[str, Any]:
        if found.step == 20:
            tries.append(found.step)
            if len(tries) < 3:
                return {"error": "its process was ended by SIGKILL (out of memory?)"}
        return whole(self, found)

    monkeypatch.setattr(watcher._Watch, "_run", run)
    events: list[str] = []
    outcome = once(tmp_path / "t", report=lambda s: events.append(s.event) if s.event else None)
    assert set(outcome.failed) == {10}
    assert "truncated" in outcome.failed[10]
    assert sorted(evaluated) == [20, 30]
    assert len(tries) == 3
    assert sum("checkpoint-10 failed" in e for e in events) == 3
    assert "checkpoint-20 failed (1 of 3; it will be tried again): its process was ended by SIGKILL" in " ".join(events)


def test_a_checkpoint_that_the_trainer_deletes_is_skipped_with_a_note(
    tiny_base: Path, tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20, 30):
        checkpoint(tiny_base, tmp_path / "t", step)
    whole = watcher._Watch._run

    def run(self: Any, found: Checkpoint) -> dict[str, Any]:
        for step in (10, 20):  # the one under evaluation, and one that waits
            shutil.rmtree(tmp_path / "t" / f"checkpoint-{step}", ignore_errors=True)
        return whole(self, found) if found.path.is_dir() else {"error": "no such file"}

    monkeypatch.setattr(watcher._Watch, "_run", run)
    events: list[str] = []
    outcome = once(tmp_path / "t", report=lambda s: events.append(s.event) if s.event else None)
    assert outcome.deleted == (10, 20)
    assert not outcome.failed
    assert evaluated == [30]
    assert "checkpoint-20 was deleted before it was evaluated: raise the Trainer's save_total_limit." in events


def test_a_rule_writes_stop_and_the_evidence_once(tiny_base: Path, tmp_path: Path, evaluated: list[int]) -> None:
    for step in (100, 200, 300, 400):
        checkpoint(tiny_base, tmp_path / "t", step)
    rules = ["cp_sent_ru < 0.95 for 2"]
    outcome = once(tmp_path / "t", rules=rules)
    fired_at = outcome.fired[0].step
    assert evaluated == [s for s in (100, 200, 300, 400) if s <= fired_at], "the others are not evaluated"
    stop = json.loads((tmp_path / "t" / "STOP").read_text())
    assert stop["reason"].startswith("cp_sent_ru < 0.95 for 2: ")
    assert stop["step"] == fired_at
    again = once(tmp_path / "t", rules=rules)
    assert again.fired
    lines = [json.loads(line) for line in (tmp_path / "runs" / "rules.jsonl").read_text().splitlines()]
    assert len([line for line in lines if "rule" in line]) == 1
    assert [e["step"] for e in lines[0]["evidence"]] == [fired_at - 100, fired_at]
    args = [
        "--data",
        "mini",
        "--engine",
        "hf",
        "--tasks",
        ",".join(TASKS),
        "--num-fewshot",
        0,
        "--output",
        tmp_path / "runs",
    ]
    out = call("watch", tmp_path / "t", "--once", *args, "--stop-if", rules[0], code=3)
    assert "Rule fired: cp_sent_ru < 0.95 for 2" in out
    assert "rules.jsonl" in out


def test_a_loss_that_is_no_number_in_the_trainers_log(tiny_base: Path, tmp_path: Path, evaluated: list[int]) -> None:
    history = [{"loss": 2.0, "step": 5}, {"loss": float("nan"), "step": 15}]
    checkpoint(tiny_base, tmp_path / "t", 10, log_history=history[:1])
    assert not once(tmp_path / "t", rules=["loss not finite"]).fired
    checkpoint(tiny_base, tmp_path / "t", 20, log_history=history)
    outcome = once(tmp_path / "t", rules=["loss not finite"])
    assert outcome.fired[0].step == 15
    assert evaluated == [10]


def test_the_best_checkpoint_outlives_the_trainers_deletions(
    tiny_base: Path, tmp_path: Path, evaluated: list[int]
) -> None:
    folder = tmp_path / "t"
    for step in (300, 400):
        checkpoint(tiny_base, folder, step)
    weights = (folder / "checkpoint-300" / "model.safetensors").read_bytes()
    outcome = once(folder, keep_best="cp_sent_ru")
    assert outcome.best is not None
    assert outcome.best.step == 300
    shutil.rmtree(folder / "checkpoint-300")
    assert (folder / "best" / "model.safetensors").read_bytes() == weights
    best = json.loads((folder / "best.json").read_text())
    assert (best["step"], best["checkpoint"], best["metric"]) == (300, "best", "cp_sent_ru")
    assert best["value"] == outcome.best.values["cp_sent_ru"]
    once(folder, keep_best="cp_sent_ru")
    assert (folder / "best" / "model.safetensors").read_bytes() == weights, "it stays although its checkpoint is gone"
    checkpoint(tiny_base, folder, 500)
    checkpoint(tiny_base, folder, 100)  # comes late, and is better
    once(folder, keep_best="cp_sent_ru")
    assert (folder / "best").resolve().name == "best-100"
    assert not (folder / "best-300").exists()
    assert {p.name for p in folder.iterdir()} == {
        "best", "best-100", "best.json", "checkpoint-100", "checkpoint-400", "checkpoint-500",
    }  # fmt: skip
    with pytest.raises(OSError):
        keep(folder / "checkpoint-300", folder)
    assert (folder / "best" / "config.json").is_file(), "what was best stays"


def test_a_training_begun_anew_in_the_same_folder_is_evaluated_anew(
    tiny_base: Path, tmp_path: Path, evaluated: list[int]
) -> None:
    folder = tmp_path / "t"
    for step in (10, 20, 30):
        checkpoint(tiny_base, folder, step)
    once(folder)
    # The Trainer saves the same weights again after it was resumed: one look, nothing computed.
    (folder / "checkpoint-20" / "model.safetensors").touch()
    assert [p.step for p in once(folder).points] == [10, 20, 30]
    assert evaluated == [10, 20, 30]
    assert len(find_runs(tmp_path / "runs")) == 3
    shutil.rmtree(folder)
    for step in (10, 20):
        checkpoint(tiny_base, folder, step, weights=5)
    points = once(folder).points
    assert evaluated[3:] == [10, 20]
    assert [p.step for p in points] == [10, 20], "step 30 was another training's"
    assert len({r.header["model"]["weights_sha256"] for r in find_runs(tmp_path / "runs")}) == 5


def test_the_tokenizer_may_be_elsewhere(tiny_base: Path, tmp_path: Path, evaluated: list[int]) -> None:
    folder = tmp_path / "t"
    for step in (10, 20):
        path = checkpoint(tiny_base, folder, step)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (path / name).rename(tmp_path / name)
    outcome = once(folder)
    assert all("--tokenizer DIR" in reason for reason in outcome.failed.values())
    assert set(outcome.failed) == {10, 20}
    (tmp_path / "tok").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / name, tmp_path / "tok" / name)
    once(folder, tokenizer=tmp_path / "tok")
    assert evaluated == [10, 20]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / name, folder / name)
    once(folder)
    assert evaluated == [10, 20], "the same tokenizer from the folder above is the same run"


@pytest.mark.parametrize("end", ["max_steps", "until_step", "lep.json"])
def test_it_follows_a_training_to_its_end(
    end: str, tiny_base: Path, tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins before the training does, and ends with it."""
    folder = tmp_path / "t"
    coming = [10, 20, 30]

    def sleep(seconds: float) -> None:
        assert seconds == 7
        if coming:
            checkpoint(tiny_base, folder, coming.pop(0), max_steps=30 if end == "max_steps" else 10_000)
        elif end == "lep.json":
            (folder / "lep.json").write_text("{}")
        else:
            raise AssertionError("the training is over")

    monkeypatch.setattr(watcher.time, "sleep", sleep)
    outcome = watch(
        folder, output=tmp_path / "runs", poll=7, settle=0.0, data="mini", engine="hf", tasks=TASKS, num_fewshot=0,
        until_step=30 if end == "until_step" else None,
    )  # fmt: skip
    assert evaluated == [10, 20, 30]
    assert [p.step for p in outcome.points] == [10, 20, 30]


def test_a_checkpoint_that_another_process_evaluates_is_waited_for(
    tiny_base: Path, tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20):
        checkpoint(tiny_base, tmp_path / "t", step)
    whole, asked = watcher._Watch._run, []

    def run(self: Any, found: Checkpoint) -> dict[str, Any]:
        asked.append(found.step)
        return (
            {"error": "Another process", "busy": True}
            if asked.count(10) < 3 and found.step == 10
            else whole(self, found)
        )

    monkeypatch.setattr(watcher._Watch, "_run", run)
    outcome = once(tmp_path / "t")
    assert not outcome.failed
    assert sorted(evaluated) == [10, 20]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "darumeru-trian"], "Unknown suite 'darumeru-trian'. Did you mean 'darumeru-train'?"),
        (["--stop-if", "darucopy_ur < 0.9"], "Did you mean 'darucopy_ru'?"),
        (["--stop-if", "darucopy_ru is low"], "is not understood. A rule is"),
        (["--keep-best", "micro"], "Did you mean 'micro_avg'?"),
        (["--engine", "api"], "use --engine hf or vllm"),
        (["--engine", "vlm"], "Unknown engine 'vlm'. Did you mean 'vllm'?"),
        (["--data", "nowhere"], "Unknown bundle 'nowhere'"),
        (["--device", "gpu"], "auto, cpu, cuda, or cuda:N"),
        (["--tokenizer", "nowhere"], "--tokenizer 'nowhere' holds no tokenizer"),
        (["--poll", "0"], "give seconds above 0"),
        (["--limit", "0"], "--limit: 0 is not possible"),
    ],
)
def test_wrong_options_say_what_is_possible(args: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    out = call("watch", tmp_path / "t", "--once", "--data", "mini", "--engine", "hf", *args, code=2)
    assert message in out.replace("\n", " "), out


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "is no folder" in call("watch", tmp_path / "a" / "b", code=2)
    assert "is no folder" in call("watch", tmp_path / "t", "--once", "--data", "mini", code=2)
    (tmp_path / "t").mkdir()
    out = call("watch", tmp_path / "t", "--once", "--data", "mini", "--engine", "hf", "--output", tmp_path / "runs")
    assert "holds no checkpoint-N" in out


def test_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert device_of("cuda:1") == ("cuda", {"CUDA_VISIBLE_DEVICES": "1"})
    assert device_of("cpu") == ("cpu", {"CUDA_VISIBLE_DEVICES": ""})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-x")
    assert device_of("cuda:1") == ("cuda", {"CUDA_VISIBLE_DEVICES": "GPU-x"})
    with pytest.raises(UserError, match="names 2 GPUs"):
        device_of("cuda:2")


@pytest.mark.slow
def test_a_checkpoint_that_crashes_its_process_does_not_hurt_the_others(tiny_base: Path, tmp_path: Path) -> None:
    """Real processes: one model that transformers does not know, one that is well; the table and exit code 1."""
    checkpoint(tiny_base, tmp_path / "t", 10)
    bad = checkpoint(tiny_base, tmp_path / "t", 20)
    config = json.loads((bad / "config.json").read_text())
    (bad / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    aged(bad, 100)
    out = call(
        "watch", tmp_path / "t", "--once", "--data", "mini", "--engine", "hf", "--device", "cpu", "--tasks", "rwsd_tenth",
        "--num-fewshot", 0, "--output", tmp_path / "runs", "--poll", 0.1, code=1,
    )  # fmt: skip
    assert "checkpoint-10 is evaluated" in out
    assert "checkpoint-20 failed (3 of 3; it is left out)" in out
    assert "1 checkpoints could not be evaluated: checkpoint-20" in out
    assert len([r for r in find_runs(tmp_path / "runs") if r.complete]) == 1


TRAINING = """
import sys, time
from pathlib import Path
import torch
from transformers import (AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments,
                          default_data_collator)
model, output, steps = sys.argv[1:]
class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(2)
rows = torch.randint(6, 600, (64, 32), generator=torch.Generator().manual_seed(0)).tolist()
trainer = Trainer(
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
    TrainingArguments(output_dir=output, max_steps=int(steps), per_device_train_batch_size=2, save_steps=2, report_to=[],
                      use_cpu=True, disable_tqdm=True, include_num_input_tokens_seen="all"),
    train_dataset=[{"input_ids": r, "labels": r} for r in rows], processing_class=AutoTokenizer.from_pretrained(model),
    data_collator=default_data_collator, callbacks=[Slow()],
)
whole = [p.parent for p in Path(output).glob("checkpoint-*/trainer_state.json")]  # the kill may have come while it saved
trainer.train(resume_from_checkpoint=str(max(whole, key=lambda p: int(p.name[11:]))) if whole else None)
"""

SPY = """
import os, pathlib
if "DARUMERU_SPY" in os.environ:
    import darumeru.record.run as r
    old = r.Journal.append
    def append(self, batch, *rest):
        old(self, batch, *rest)
        with open(os.environ["DARUMERU_SPY"], "a") as log:
            log.write("".join(f"{self.path.parent.name} {a.id}\\n" for a in batch))
    r.Journal.append = append
"""


@pytest.mark.slow
def test_killed_and_started_again_during_a_training(tiny_base: Path, tmp_path: Path) -> None:
    """SIGKILL to the watch in the middle of an evaluation, and to the training; both begin again.

    Every checkpoint is evaluated exactly once: one record each, and no request was answered twice.
    """
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    root = Path(__file__).parents[2]
    asked = tmp_path / "asked.txt"
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path / 'spy'}{os.pathsep}{root}", "DARUMERU_SPY": str(asked), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    train = [sys.executable, "-c", TRAINING, str(tiny_base), str(tmp_path / "t"), "8"]
    follow = [
        sys.executable, "-c", "from darumeru.cli import main; main()", "watch", str(tmp_path / "t"), "--data", "mini",
        "--engine", "hf", "--device", "cpu", "--tasks", "cp_sent_ru,cp_sent_en,rwsd_tenth", "--num-fewshot", "0", "--limit", "12",
        "--output", str(tmp_path / "runs"), "--poll", "0.5", "--model-args", "batch_tokens=300",
    ]  # fmt: skip
    (tmp_path / "t").mkdir()
    deadline = time.monotonic() + 400

    said = tmp_path / "said.txt"

    def start(command: list[str]) -> "subprocess.Popen[bytes]":
        with said.open("a") as file:
            return subprocess.Popen(command, env=environment, stdout=file, stderr=file)

    def until(condition: Callable[[], bool]) -> None:
        while not condition():
            assert time.monotonic() < deadline, said.read_text()[-3000:]
            assert training.poll() in (None, 0), said.read_text()[-3000:]
            time.sleep(0.02)

    def under_way() -> bool:
        """In the middle of an evaluation: some of its answers are there, its record is not."""
        for journal in (tmp_path / "runs").glob("*/journal.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                if journal.stat().st_size > 500:
                    return True
        return False

    training, watching = start(train), start(follow)
    try:
        for kills in (1, 2):
            until(under_way)
            watching.send_signal(signal.SIGKILL)
            watching.wait()
            if kills == 1:
                training.send_signal(signal.SIGKILL)
                training.wait()
                training = start(train)
            watching = start(follow)
            done = len(list((tmp_path / "runs").glob("*/manifest.json")))
            until(lambda done=done: len(list((tmp_path / "runs").glob("*/manifest.json"))) > done)  # type: ignore[misc]
        until(lambda: training.poll() is not None)
        assert training.returncode == 0
        until(lambda: watching.poll() is not None)
        assert watching.returncode == 0
    finally:
        for process in (training, watching):
            process.kill()
            process.wait()
    runs = [r for r in find_runs(tmp_path / "runs") if r.complete]
    assert len(runs) == len(find_runs(tmp_path / "runs")), "none was left behind"
    assert sorted(r.header["training"]["step"] for r in runs) == [2, 4, 6, 8]
    assert all(r.header["training"]["tokens_seen"] == r.header["training"]["step"] * 64 for r in runs)
    lines = asked.read_text().split("\n")[:-1]
    assert len(lines) == len(set(lines)), "a stored answer was computed again"
