"""A checkpoint that lacks weights of its model is refused; before, transformers filled them at random and they were scored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

import darumeru
from darumeru.errors import UserError
from lep.model.loading import load_model
from support.engines import collect, open_hf, some_requests


def changed(model: Path, folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], **config: Any) -> Path:
    """A copy of a model with other tensors or other settings."""
    shutil.copytree(model, folder)
    save_file(change(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder


def same(tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors


def test_a_run_of_a_compiled_models_checkpoint_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    """`torch.compile` puts `_orig_mod.` before every name."""
    folder = changed(tiny_base, tmp_path / "m", lambda tensors: {f"_orig_mod.{k}": v for k, v in tensors.items()})
    with pytest.raises(
        UserError, match=r"lacks .* filled at random.*It holds '_orig_mod\.model\.embed_tokens\.weight'"
    ):
        darumeru.evaluate(folder, data="mini", tasks=["rwsd"], limit=2, engine="hf", output=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/scores.json"))


def test_a_head_that_is_neither_there_nor_tied_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = changed(tiny_base, tmp_path / "m", same, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lacks 1 of .*'lm_head\.weight'.*set tie_word_embeddings to true"):
        open_hf(folder)


def test_a_lost_layer_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = changed(tiny_base, tmp_path / "m", same, num_hidden_layers=3)
    with pytest.raises(UserError, match=r"lacks 9 of .*'model\.layers\.2\.input_layernorm\.weight'.*download it again"):
        open_hf(folder)


def test_another_shape_is_named(tiny_base: Path, tmp_path: Path) -> None:
    folder = changed(tiny_base, tmp_path / "m", same, vocab_size=700)
    with pytest.raises(
        UserError, match=r"'model\.embed_tokens\.weight' has the shape \[600, 32\], .* needs \[700, 32\]"
    ):
        open_hf(folder)


def test_a_head_of_its_own_and_weights_too_many_are_no_fault(tiny_base: Path, tmp_path: Path) -> None:
    """Tied weights are written once, and a tensor that nothing reads leaves the model as it is."""
    requests = some_requests()
    with open_hf(tiny_base) as engine:
        want = collect(engine, requests)
    more = changed(tiny_base, tmp_path / "more", lambda tensors: {**tensors, "value_head.weight": torch.zeros(1, 32)})
    with open_hf(more) as engine:
        assert collect(engine, requests) == want
    torch.manual_seed(1)
    model = LlamaForCausalLM.from_pretrained(tiny_base, tie_word_embeddings=False)
    model.lm_head.weight.data.normal_()
    own = shutil.copytree(tiny_base, tmp_path / "own")
    model.save_pretrained(own)
    with open_hf(own) as engine:
        assert collect(engine, requests) != want


def test_lep_does_not_train_or_measure_what_was_filled_at_random(tiny_base: Path, tmp_path: Path) -> None:
    compiled = changed(tiny_base, tmp_path / "m", lambda tensors: {f"_orig_mod.{k}": v for k, v in tensors.items()})
    with pytest.raises(UserError, match=r"filled at random.*'_orig_mod\.model\.embed_tokens\.weight'"):
        load_model(compiled)
