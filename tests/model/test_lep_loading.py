"""Models are loaded without copies of their weights, and compute in float32 with weights that are stored in 16 bits."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from darumeru.errors import UserError
from lep.model.checkpoint import open_checkpoint
from lep.model.loading import load_exact, load_model

IDS = torch.arange(4, 36)[None]


def in_16_bits(folder: Path) -> Path:
    """The folder with its weights and their stated type in bfloat16."""
    tensors = {name: value.bfloat16() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = transformers.AutoConfig.from_pretrained(folder)
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("kind", ["llama-tied", "llama", "gpt2", "qwen3", "mistral3"])
def test_weights_of_16_bits_compute_as_if_they_had_been_loaded_in_float32(
    kind: str, make_model: Callable[..., Path]
) -> None:
    folder = in_16_bits(make_model("model", kind))
    wanted = logits(
        getattr(transformers, open_checkpoint(folder).architecture).from_pretrained(folder, dtype="float32")
    )
    model = load_exact(open_checkpoint(folder))
    for _ in range(2):
        assert torch.equal(logits(model), wanted)
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_stay_in_their_file(make_model: Callable[..., Path]) -> None:
    folder = in_16_bits(make_model("model", "llama"))
    model = load_model(folder)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    of_file = [[int(part, 16) for part in m[0].split("-")] for m in maps if m[-1] == str(folder / "model.safetensors")]
    for name, parameter in model.named_parameters():
        assert any(start <= parameter.data_ptr() < stop for start, stop in of_file), name


def test_a_model_that_continues_no_text_is_named(tmp_path: Path) -> None:
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no model of type 'vit' that continues a text"):
        load_model(tmp_path)
