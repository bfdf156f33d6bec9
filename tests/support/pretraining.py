"""A continued pre-training small enough for a test: base model, texts, settings, and what came out."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lep.pretraining import callbacks
from lep.pretraining.settings import PretrainSettings, settings_of
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level

WORDS = " ".join(RUSSIAN + ENGLISH).split()
NEW_FROM = 390
ROWS = 448


def documents(number: int = 60, seed: int = 0) -> list[str]:
    """Texts of one to six short paragraphs."""
    draw = random.Random(seed)
    return [
        "\n".join(" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(draw.randint(1, 6)))
        for _ in range(number)
    ]


def make_base(make_model: Callable[..., Path], kind: str, name: str = "base", **settings: Any) -> Path:
    return save_byte_level(make_model(name, kind, rows=ROWS, initializer_range=0.3, **settings), ENGLISH + RUSSIAN, 400)


def small(**changes: Any) -> PretrainSettings:
    values: dict[str, Any] = {
        "block_size": 48, "total_batch_size": 4, "per_device_train_batch_size": 2, "warmup_steps": 2, "max_steps": 8,
        "save_steps": 3, "logging_steps": 1, "device": "cpu", "learning_rate": 1e-2, "new_from": NEW_FROM,
    }  # fmt: skip
    return settings_of(**{**values, **changes})


def model_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def losses(output: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let a training fail when it has done so many steps."""
    plain = callbacks.Flow.on_step_end

    def fails(self: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == step:
            raise RuntimeError("interrupted")
        plain(self, args, state, control, **others)

    monkeypatch.setattr(callbacks.Flow, "on_step_end", fails)
