"""Checkpoints as a Trainer leaves them, without a training."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from darumeru.watch.watcher import Outcome, watch


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


def watch_once(folder: Path, **more: Any) -> Outcome:
    """Watch the checkpoints that are there, without waiting for them to settle."""
    return watch(
        folder, once=True, output=folder.parent / "runs", poll=0.01, settle=0.0,
        **{"data": "mini", "engine": "hf", "num_fewshot": 0, **more},
    )  # fmt: skip
