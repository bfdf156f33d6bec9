"""A processor that computes bfloat16 slowly: whoever waits for it is told what is faster."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import darumeru
from lep.pipeline import estimate, load_recipe, plan
from lep.pretraining.job import pretrain
from support.pipeline import make_inputs
from support.pretraining import documents, make_base, small

ADVICE = "has no AVX-512 and computes bfloat16 slowly"


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"architecture": "x86_64", "avx512_bw": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_an_evaluation(tiny_chat: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, dtype: str) -> None:
    darumeru.evaluate(
        tiny_chat, output=tmp_path, engine="hf", device="cpu", dtype=dtype, data="mini", tasks=["rwsd"], limit=1
    )
    assert (ADVICE in caplog.text) == (dtype == "bfloat16")


@pytest.mark.parametrize("dtype", ["bfloat16", "auto"])
def test_a_training(make_model: Callable[..., Path], tmp_path: Path, dtype: str) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(documents(5)))
    said: list[str] = []
    base = make_base(make_model, "llama-tied")
    pretrain(base, [corpus], tmp_path / "out", settings=small(max_steps=1, dtype=dtype), warn=said.append)
    assert any(ADVICE in line for line in said) == (dtype == "bfloat16")


def test_a_plan(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    for dtype, told in (("bfloat16", True), ("float32", False)):
        recipe = load_recipe("smollm2-ru", [f"base={inputs / 'base'}", f"pretrain.dtype={dtype}"])
        notes = estimate(recipe, tmp_path / "out", plan(recipe, tmp_path / "out")).notes
        assert any(ADVICE in note and "in a recipe dtype: float32" in note for note in notes) == told
