"""`darumeru watch`: each whole checkpoint exactly once, whatever is killed, half-written, broken or deleted."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import DarumeruError, UserError
from darumeru.evaluation import execute, prepare
from darumeru.record.run import find_runs
from darumeru.watch import watch, watcher
from darumeru.watch.checkpoints import Checkpoint, keep, look
from darumeru.watch.process import device_of
from support.checkpoints import aged, checkpoint, watch_once
from support.commands import call
from support.tiny import KnowingEngine

TASKS = ("cp_sent_ru", "rwsd_tenth")


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


once = partial(watch_once, tasks=TASKS)


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
    headers = sorted((r.header for r in find_runs(tmp_path / "runs")), key=lambda h: h.training.step)
    assert [h.training.to_json() for h in headers] == [
        {"run": "t", "step": step, "tokens_seen": step * 10} for step in (20, 100, 300)
    ]
    assert {h.model.name for h in headers} == {"t"}
    left = find_runs(tmp_path / "runs")[0].path / "journal.jsonl"
    left.write_text("left by a process that was killed after it had written the manifest\n")
    again = once(tmp_path / "t")
    assert not left.exists()
    assert evaluated == [20, 100, 300], "a complete record is enough"
    assert again.points == outcome.points
    checkpoint(tiny_base, tmp_path / "t", 200)
    once(tmp_path / "t")
    assert evaluated[3:] == [200]
    once(tmp_path / "t", limit=5, newest_first=True)
    assert evaluated[4:] == [300, 200, 100, 20], "other settings are other runs"


def test_a_record_that_was_changed_is_not_taken_for_done(tiny_base: Path, tmp_path: Path, evaluated: list[int]) -> None:
    for step in (10, 20):
        checkpoint(tiny_base, tmp_path / "t", step)
    once(tmp_path / "t")
    damaged = find_runs(tmp_path / "runs")[0].path
    samples = damaged / "samples" / "cp_sent_ru.jsonl"
    samples.write_bytes(samples.read_bytes()[:-20])
    with pytest.raises(
        DarumeruError, match=r"cp_sent_ru\.jsonl' is not what the finished run wrote.*delete the run's folder"
    ):
        once(tmp_path / "t")
    shutil.rmtree(damaged)
    assert not once(tmp_path / "t").failed
    assert len(evaluated) == 3


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


def test_a_clock_that_was_put_back_holds_nothing_up(tiny_base: Path, tmp_path: Path) -> None:
    path = checkpoint(tiny_base, tmp_path, 7, age=-86400)
    assert look(path, 7, settle=5.0).state == "whole"


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
    (folder / ".best-200.tmp").mkdir()  # of a watch that was killed
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


def test_an_earlier_trainings_records_say_nothing_of_a_new_one(
    tiny_base: Path, tmp_path: Path, evaluated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the same folder: no rule fires for what its predecessor did, and no checkpoint is kept for that."""
    folder, judged = tmp_path / "t", {"rules": ["cp_sent_ru < 0.95"], "keep_best": "cp_sent_ru"}
    checkpoint(tiny_base, folder, 300)
    assert once(folder).points[0].values["cp_sent_ru"] < 0.95
    shutil.rmtree(folder)
    folder.mkdir()
    assert not once(folder, **judged).fired, "before its first checkpoint"
    checkpoint(tiny_base, folder, 300, weights=5)

    def better(self: Any, found: Checkpoint) -> dict[str, Any]:
        return {"run": str(execute(prepare(self._asked_of(found)), self.output, open_engine=KnowingEngine).path)}

    monkeypatch.setattr(watcher._Watch, "_run", better)
    curves = []
    outcome = once(folder, **judged, report=lambda status: curves.append([p.step for p in status.points]))
    assert not outcome.fired
    assert not (folder / "STOP").exists()
    assert curves[0] == [], "nothing is known of it yet"
    assert [p.values["cp_sent_ru"] for p in outcome.points] == [1.0]
    assert json.loads((folder / "best.json").read_text())["value"] == 1.0
    aged(folder / "checkpoint-300", 50)  # a copy of the folder has other times
    assert [p.values["cp_sent_ru"] for p in once(folder, **judged).points] == [1.0]
    assert len(find_runs(tmp_path / "runs")) == 2


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


def test_records_that_could_not_be_written_are_refused_before_anything_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "file").touch()
    arguments = ("watch", tmp_path / "t", "--data", "mini", "--engine", "hf", "--output")
    assert "file' is a file; --output must be a folder." in call(*arguments, tmp_path / "file", code=2).replace(
        "\n", " "
    )
    monkeypatch.setattr(os, "access", lambda path, how: path != tmp_path / "read-only")  # root may write anywhere
    out = call(*arguments, tmp_path / "read-only", code=2).replace("\n", " ")
    assert "No right to write" in out


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
