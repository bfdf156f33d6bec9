"""A grid small enough for a test: base model, texts and the file."""

from pathlib import Path
from typing import Any

import yaml

from support.pipeline import texts, words
from support.tiny import make_model

GRID: dict[str, Any] = {
    "name": "tiny <b>grid</b>",
    "base": "base",
    "corpus": ["ru.jsonl"],
    "held_out": {"ru": "held-ru.jsonl", "en": "held-en.jsonl"},
    "pretrain": {
        "train": "new-rows+lora", "block_size": 32, "total_batch_size": 4, "per_device_train_batch_size": 4, "device": "cpu",
        "held_out_characters": 600, "learning_rate": 0.01,
    },
    "copies": 2,
    "axes": {"vocab.extend.add": [0, 40], "init.strategy": ["mean", "random"], "tokens": [256, 512], "seed": [0, 1]},
}  # fmt: skip


def make_inputs(folder: Path) -> Path:
    """A base model and texts, with the grid beside them."""
    make_model(folder / "base", chat=False)
    texts(folder / "ru.jsonl", words("Cyrillic"), 80, seed=0)
    texts(folder / "held-ru.jsonl", words("Cyrillic"), 6, seed=2)
    texts(folder / "held-en.jsonl", words("Latin"), 6, seed=3)
    return write_grid(folder)


def write_grid(folder: Path, **changes: Any) -> Path:
    file = folder / "grid.yaml"
    content = {key: value for key, value in {**GRID, **changes}.items() if value is not None}
    file.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    return file
