"""A pipeline killed with SIGKILL resumes in the stage in which it was."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lep.pipeline import load_recipe, plan, run_recipe
from support.pipeline import make_inputs, todo


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, texts and a recipe beside them."""
    return make_inputs(tmp_path_factory.mktemp("pipeline"))


def test_a_killed_pipeline_goes_on(inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    changes = ["pretrain.max_steps=80", "pretrain.save_steps=1", "pretrain.save_total_limit=2"]
    command = [
        sys.executable,
        "-m",
        "lep",
        "run",
        str(inputs / "recipe.yaml"),
        "--output",
        str(output),
        "--until",
        "pretrain",
    ]
    bars = ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS")
    environment = {key: value for key, value in os.environ.items() if key not in bars}
    told = tmp_path / "told"
    with told.open("wb") as stderr:
        process = subprocess.Popen([*command, "--set", *changes], stderr=stderr, env=environment)
    checkpoints = output / "base-ru" / "checkpoints"
    try:
        deadline = time.monotonic() + 400
        while not any(checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "pretrain → base-ru" in told.read_text()
    assert "it/s" not in told.read_text(), "libraries are told to be silent before they are imported"
    assert not (output / "base-ru" / "lep.json").exists()
    tokenizer = (output / "tokenizer" / "lep.json").stat().st_mtime_ns
    recipe = load_recipe(inputs / "recipe.yaml", [changes[0], "pretrain.save_steps=40", changes[2]])
    states = plan(recipe, output, last="pretrain")
    assert [(s.step.name, s.why) for s in states if s.todo] == [("pretrain", "begun")]
    said: list[str] = []
    assert run_recipe(recipe, output, last="pretrain", say=said.append) is None
    assert [line.split(" ")[0] for line in said] == ["pretrain"]
    assert (output / "tokenizer" / "lep.json").stat().st_mtime_ns == tokenizer
    manifest = json.loads((output / "base-ru" / "lep.json").read_text())
    assert manifest["measures"]["steps"] == 80
    # The training went on from a checkpoint: the steps before it were not logged again.
    assert json.loads((output / "stages" / "pretrain.json").read_text())["state"] == "done"
    assert todo(inputs, output, *changes, last="pretrain") == []
