"""Models that transformers maps as models of images and texts only: their language model goes through every stage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lep.calibration import calibrate
from lep.initialisation.job import initialise
from lep.measure.bits import bits_per_byte
from lep.pretraining.job import pretrain
from lep.propagation.job import propagate
from support.chats import chat
from support.lep_models import ENGLISH, RUSSIAN, SEEING, save_byte_level
from support.pretraining import documents, small

SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
APART = ("mistral3", "qwen3-vl")
"""Keep documents that share a row apart."""


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def text_layer(name: str) -> bool:
    return ".layers." in name and "vis" not in name


@pytest.mark.parametrize("kind", SEEING)
def test_the_language_model_goes_through_every_stage(
    kind: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = save_byte_level(make_model("base", kind, rows=448), ENGLISH, 400, special=SPECIAL)
    instruct = save_byte_level(make_model("instruct", kind, rows=448), ENGLISH, 400, special=SPECIAL)
    (instruct / "chat_template.jinja").write_text(TEMPLATE)
    moved = {name: value + 0.02 if "embed_tokens" in name else value for name, value in tensors_of(instruct).items()}
    save_file(moved, instruct / "model.safetensors", {"format": "pt"})
    tokenizer = save_byte_level(tmp_path / "tokenizer", ENGLISH + RUSSIAN, 500, special=SPECIAL)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))

    initialise(base, tokenizer, tmp_path / "start")
    settings = small(train="new-rows+lora", packing=kind in APART, max_steps=4, new_from=400)
    pretrain(tmp_path / "start", [corpus], tmp_path / "adapted", settings=settings)
    start, adapted = tensors_of(tmp_path / "start"), tensors_of(tmp_path / "adapted")
    changed = {name for name, value in start.items() if not torch.equal(value, adapted[name])}
    layers = {name for name in changed if text_layer(name)}
    assert {name for name in start if text_layer(name) and name.endswith("proj.weight")} == layers
    assert all("embed_tokens" in name or "lm_head" in name for name in changed - layers)

    manifest = propagate(base, tmp_path / "adapted", instruct, tmp_path / "out", method="auto", texts=RUSSIAN[:1])
    scores = manifest["measures"]["bits_per_byte"]
    assert bits_per_byte(tmp_path / "out", RUSSIAN[:1]) == pytest.approx(min(scores.values()), rel=1e-5)
    out = tensors_of(tmp_path / "out")
    assert all(torch.equal(out[name], value) for name, value in moved.items() if "vis" in name)

    data = tmp_path / "chats.jsonl"
    chats = [chat(f"say {word}", word) for word in " ".join(ENGLISH).split()[:8]]
    data.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats))
    changes: dict[str, Any] = {"learning_rate": 0.01, "batch": 4, "max_length": 64, "max_steps": 2}
    calibrate(tmp_path / "out", data, tmp_path / "final", dtype="float32", **changes)
    final = tensors_of(tmp_path / "final")
    assert {name for name, value in out.items() if not torch.equal(value, final[name])} >= layers
    assert all(torch.equal(final[name], value) for name, value in out.items() if "vis" in name)
    whole = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "final")
    assert whole.get_input_embeddings().weight.shape[0] == manifest["measures"]["rows"]
