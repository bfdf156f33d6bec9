"""A study small enough for a test: base model, texts and a recipe."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

from lep.pipeline import load_recipe, plan
from lep.tokenizer.scripts import count_script
from support.chats import chat
from support.tiny import make_model, mini_texts

NAME = "tiny <b>study</b> | 1"
PROMPT = "/Скажи <script>дом</script> " + "и ещё раз " * 30
"""Too long for a file name, and begins as a path does."""

RECIPE: dict[str, Any] = {
    "name": NAME,
    "base": "base",
    "instruct": {
        "data": {"prompts": ["prompts.jsonl"], "answers": True},
        "train": {"recipe": "instruct", "train_embeddings": True, "learning_rate": 1e-2, "batch": 8, "max_length": 256,
                  "max_steps": 3, "device": "cpu"},
    },
    "corpus": ["ru.jsonl"],
    "held_out": {"ru": "held-ru.jsonl", "en": "held-en.jsonl"},
    "vocab": {"extend": {"add": 60}},
    "pretrain": {"max_steps": 4, "block_size": 64, "total_batch_size": 4, "per_device_train_batch_size": 2,
                 "warmup_steps": 1, "save_steps": 2, "logging_steps": 1, "device": "cpu", "held_out_characters": 300},
    "propagate": {"methods": ["conversion", "swap"]},
    "calibrate": {
        "data": {"prompts": ["prompts.jsonl"], "engine": "hf", "settings": {"device": "cpu"}, "max_tokens": 4, "limit": 4,
                 "answers": True, "copy": 4, "copy_corpus": ["copy.jsonl"], "copy_characters": [50, 900]},
        "train": {"recipe": "self", "batch": 4, "max_length": 512, "max_steps": 2, "device": "cpu"},
    },
    "evaluate": {"suite": "darumeru-train", "tasks": ["bpb_ru", "parus_tenth"], "data": "mini", "engine": "hf", "limit": 2,
                 "device": "cpu", "models": ["propagated", "calibrated"]},
    "report": {"examples": [PROMPT], "max_tokens": 4, "characters": 300, "speed_tokens": 4,
               "chats": "chats.jsonl", "chat_characters": 30},
}  # fmt: skip


def words(script: str) -> list[str]:
    return [word for text in mini_texts() for word in text.split() if count_script(word, (script,)) == len(word)]


def texts(file: Path, vocabulary: list[str], number: int, seed: int) -> Path:
    draw = random.Random(seed)
    rows = ["\n".join(" ".join(draw.choices(vocabulary, k=12)) for _ in range(3)) for _ in range(number)]
    file.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows))
    return file


def write_recipe(folder: Path, **changes: Any) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**RECIPE, **changes}, allow_unicode=True))
    return file


def make_inputs(folder: Path) -> Path:
    """A base model, texts and a recipe beside them."""
    make_model(folder / "base", chat=True)
    russian, english = words("Cyrillic"), words("Latin")
    texts(folder / "ru.jsonl", russian, 80, seed=0)
    texts(folder / "copy.jsonl", russian, 12, seed=1)
    texts(folder / "held-ru.jsonl", russian, 6, seed=2)
    texts(folder / "held-en.jsonl", english, 6, seed=3)
    rows = [{"prompt": f"Скажи {word}", "output": f"{word} {word}"} for word in dict.fromkeys(russian[:40])]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    talk = [{"messages": chat(row["prompt"], row["output"])} for row in rows[:3]]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in talk))
    write_recipe(folder)
    return folder


def todo(inputs: Path, output: Path, *changes: str, **stages: str) -> list[str]:
    return [s.step.name for s in plan(load_recipe(inputs / "recipe.yaml", changes), output, **stages) if s.todo]
