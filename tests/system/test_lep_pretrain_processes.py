"""Continued pre-training in processes of its own: killed in the middle, and two of them together."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lep.pretraining.checkpoints import checkpoints
from lep.pretraining.job import pretrain
from support.pretraining import NEW_FROM, documents, losses, make_base, model_of, small


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    return make_base(make_model, "llama")


def test_a_killed_training_goes_on_with_the_same_losses(base: Path, corpus: Path, tmp_path: Path) -> None:
    settings = small(max_steps=60, save_steps=7)
    pretrain(base, [corpus], tmp_path / "whole", settings=settings)
    killed = tmp_path / "killed"
    code = (
        "import sys; from lep.pretraining.job import pretrain; from lep.pretraining.settings import settings_of; import json\n"
        "pretrain(sys.argv[1], [sys.argv[2]], sys.argv[3], settings=settings_of(**json.loads(sys.argv[4])))"
    )
    values = settings.model_dump(mode="json")
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(base), str(corpus), str(killed), json.dumps(values)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    at = random.Random().randint(8, 50)
    history, deadline = killed / "history.jsonl", time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        if history.is_file() and history.read_text().count("\n") >= at:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "lep.json").exists()
    reached = checkpoints(killed / "checkpoints")
    assert reached
    for _, folder in reached:
        model_of(folder)
    pretrain(base, [corpus], killed, settings=settings)
    assert losses(killed) == pytest.approx(losses(tmp_path / "whole"), abs=1e-6), f"killed after {at} lines"


@pytest.mark.parametrize(
    ("what", "more"), [("head:0.5,all", ()), ("new-rows+lora", ("--anchor", "2", "--replay", "{corpus}=0.3"))]
)
def test_two_processes_train_as_one_does(
    base: Path, corpus: Path, tmp_path: Path, what: str, more: tuple[str, ...]
) -> None:
    found = []
    for name, launcher in (("one", []), ("two", ["torch.distributed.run", "--nproc_per_node", "2", "-m"])):
        subprocess.run(
            [
                sys.executable, "-m", *launcher, "lep", "pretrain", "--model", base, "--corpus", corpus, "--output",
                tmp_path / name, "--block-size", "48", "--total-batch-size", "4", "--per-device-train-batch-size", "1",
                "--max-steps", "8", "--save-steps", "3", "--logging-steps", "1", "--warmup-steps", "1", "--device", "cpu",
                "--learning-rate", "1e-2", "--train", what, "--new-from", str(NEW_FROM),
                *(word.format(corpus=corpus) for word in more),
            ],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONPATH": "."},
            check=True,
        )  # fmt: skip
        found.append(losses(tmp_path / name))
    assert found[1] == pytest.approx(found[0], abs=1e-5)
