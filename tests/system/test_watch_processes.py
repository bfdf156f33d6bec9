"""`darumeru watch` with real processes: one that crashes, and watch and training killed in the middle."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from darumeru.record.run import find_runs
from support.checkpoints import aged, checkpoint
from support.commands import call


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
newest = max(whole, key=lambda p: int(p.name[11:]), default=None)
if newest is None or newest.name != f"checkpoint-{steps}":  # from its last checkpoint on, transformers would train one more step
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
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
