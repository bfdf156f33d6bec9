"""Frozen layers in 8 or 4 bits while rows and LoRA are trained: what is written comes from the original weights."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from darumeru.errors import UserError
from lep.pretraining.job import pretrain
from support.pretraining import documents, losses, make_base, small

MakeModel = Callable[..., Path]
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents()))
    return file


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("quantize", ["8bit", "4bit"])
def test_what_is_written_is_not_quantized(quantize: str, make_model: MakeModel, corpus: Path, tmp_path: Path) -> None:
    base = make_base(make_model, "llama", **SIZES)
    settings = small(train="new-rows+lora", quantize=quantize, lora_learning_rate=1e-9)
    manifest = pretrain(base, [corpus], tmp_path / "out", settings=settings)
    assert manifest["settings"]["quantize"] == quantize
    learned = losses(tmp_path / "out")
    assert learned[8] < learned[1]
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    for name, value in before.items():
        assert after[name].dtype == value.dtype
        if "layers" in name:  # LoRA learned next to nothing: what four bits lose would be a thousand times more
            assert (after[name] - value).abs().max() < 1e-6, name
        if "embed" in name:
            assert torch.equal(after[name][:390], value[:390])
            assert not torch.equal(after[name][390:400], value[390:400])


def test_without_bitsandbytes_it_says_what_to_install(
    make_model: MakeModel, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "bitsandbytes" else found(name, *more)
    )
    base = make_base(make_model, "llama")
    with pytest.raises(UserError, match="--quantize 8bit needs bitsandbytes: pip install bitsandbytes"):
        pretrain(base, [corpus], tmp_path / "out", settings=small(quantize="8bit"))


@pytest.mark.parametrize("train", ["all", "embeddings+ends"])
def test_layers_that_are_trained_cannot_be_quantized(
    train: str, make_model: MakeModel, corpus: Path, tmp_path: Path
) -> None:
    base = make_base(make_model, "llama")
    named = re.escape(f"--train {train} trains them")
    with pytest.raises(UserError, match=f"--quantize 4bit is for frozen layers.*{named}"):
        pretrain(base, [corpus], tmp_path / "out", settings=small(quantize="4bit", train=train))
