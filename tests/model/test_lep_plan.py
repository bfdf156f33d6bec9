"""The plan of a study: what its stages need of memory and disk, and what is refused with what would fit."""

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from lep import cli
from lep.pipeline import cost, estimate, load_recipe, plan
from support.pipeline import make_inputs

SHARED: dict[str, Any] = {
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "dtype": "bfloat16",
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32},
    "32B": {"hidden_size": 5120, "intermediate_size": 25_600, "num_hidden_layers": 64, "head_dim": 128},
}
LAYERS = {"1B": 0.97e9, "8B": 6.98e9, "32B": 31.2e9}


def disk_of(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=free, used=0, free=free))


def planned(name: str, base: Path, *changes: str) -> cost.Estimate:
    settings = [f"base={base}", f"instruct={base}", "pretrain.max_steps=10", *changes]
    recipe = load_recipe(name, settings)
    return estimate(recipe, base.parent / "out", plan(recipe, base.parent / "out"))


@pytest.mark.parametrize("name", ["qwen3-8b-ru", "llama-3.1-8b-ru", "t-lite-ru"])
def test_what_does_not_fit_is_refused_with_what_would(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 24 GB a pair of 1B fits as it is, one of 8B with the change that is named, and one of 32B with none."""
    monkeypatch.setattr(cost, "free_memory", lambda: (24 * 10**9, 32 * 10**9))
    disk_of(monkeypatch, 1e14)
    said: dict[str, list[str]] = {}
    for size, values in SIZES.items():
        transformers.LlamaConfig(**SHARED, **values).save_pretrained(tmp_path / size)
        found = planned(name, tmp_path / size)
        said[size] = [sentence for sentence in found.unfit if sentence.startswith("pretrain")]
        memory = {stage: price.memory or 0 for stage, _, price in found.stages}
        # A CPU computes in float32: four bytes for each parameter of the layers.
        assert memory["pretrain"] > 4 * LAYERS[size]
        assert memory["init"] < 2e9 < memory["propagate"]
    assert said["1B"] == []
    (sentence,) = said["8B"]
    assert "24.0 GB are free here" in sentence
    fits = re.search(r"With ((?:pretrain\.\S+ )+)it needs ([\d.]+) GB", sentence)
    assert fits is not None
    assert float(fits[2]) <= 24
    assert [s for s in planned(name, tmp_path / "8B", *fits[1].split()).unfit if s.startswith("pretrain")] == []
    (sentence,) = said["32B"]
    assert re.search(r"Even with pretrain\.\S+.* it needs [\d.]+ GB: take a smaller model", sentence)


def test_a_disk_that_is_too_small_is_refused_with_what_would_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = make_inputs(tmp_path)
    disk_of(monkeypatch, 1e5)
    monkeypatch.setattr(
        sys, "argv", ["lep", "run", str(inputs / "recipe.yaml"), "--output", str(tmp_path / "out"), "--dry-run"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "of disk and 0.0 GB are free" in said
    assert "init.link=true saves" in said
    assert not (tmp_path / "out").exists()
