"""LoRA while rows or matrices are trained: what changes, how it is merged, and a training that resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from darumeru.errors import UserError
from lep.model.checkpoint import open_checkpoint
from lep.model.shards import read_rows
from lep.pretraining.job import pretrain
from lep.pretraining.settings import settings_of
from lep.pretraining.trainable import prepare
from lep.propagation.job import propagate
from support.pretraining import NEW_FROM, documents, interrupt, losses, make_base, model_of, small

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: read_rows(t, 0, t.shape[0]) for name, t in open_checkpoint(folder).tensors.items()}


def masters(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "trained" / "weights.safetensors")


def change(values: dict[str, torch.Tensor], name: str, scale: float) -> np.ndarray[Any, Any]:
    """``scale · B A`` of a linear map, written out."""
    a, b = (values[f"{name}.lora_{part}.default.weight"].double().numpy() for part in "AB")
    return scale * b @ a


@pytest.mark.parametrize(
    ("kind", "what", "layers", "targets"),
    [
        ("llama", "new-rows+lora", "all", ()),
        ("llama-tied", "new-rows+lora", "ends", ("q_proj", "down_proj")),
        ("llama-tied", "embeddings+lora", "1", ()),
        ("llama", "lora", "0,2", ("v_proj",)),
    ],
)
def test_what_is_trained_beside_lora_and_nothing_else(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str, what: str, layers: str,
    targets: tuple[str, ...],
) -> None:  # fmt: skip
    base = make_base(make_model, kind, num_hidden_layers=3)
    settings = small(train=what, max_steps=3, lora_rank=2, lora_alpha=3, lora_layers=layers, lora_targets=targets)
    pretrain(base, [corpus], tmp_path / "out", settings=settings)
    old, new = tensors(base), tensors(tmp_path / "out")
    numbers = {"all": {0, 1, 2}, "ends": {0, 2}}.get(layers) or {int(part) for part in layers.split(",")}
    values = masters(tmp_path / "out" / "checkpoints" / "checkpoint-3")
    assert set(old) == set(new)
    for name, tensor in old.items():
        parts = name.split(".")
        if parts[1] == "layers" and parts[-2] in (set(targets) or LINEAR) and int(parts[2]) in numbers:
            wanted = tensor.double().numpy() + change(values, name.removesuffix(".weight"), 3 / 2)
            np.testing.assert_allclose(new[name].numpy(), wanted, rtol=1e-5, atol=1e-6)
            assert not torch.equal(tensor, new[name]), name
        elif "embed_tokens" in name or "lm_head" in name:
            moved = (tensor != new[name]).any(dim=1).nonzero().squeeze(1)
            assert (len(moved) > 0) == (what != "lora"), name
            assert what != "new-rows+lora" or int(moved.min()) >= NEW_FROM
        else:
            assert torch.equal(tensor, new[name]), name
    with torch.no_grad():
        model_of(tmp_path / "out")(torch.arange(5, 20)[None])


def test_transposed_weights_are_merged_as_they_are_stored(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    base = make_base(make_model, "gpt2")
    pretrain(base, [corpus], tmp_path / "out", settings=small(train="lora", max_steps=2, lora_rank=2))
    old, new = tensors(base), tensors(tmp_path / "out")
    values = masters(tmp_path / "out" / "checkpoints" / "checkpoint-2")
    name = next(key for key in old if key.endswith("h.1.attn.c_attn.weight"))
    wanted = old[name].double().numpy() + change(values, "transformer.h.1.attn.c_attn", 2.0).T
    np.testing.assert_allclose(new[name].numpy(), wanted, rtol=1e-5, atol=1e-6)


def test_a_change_below_the_last_bit_is_kept_on_average(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    base = make_base(make_model, "llama-tied", hidden_size=64, intermediate_size=256)
    model_of(base, torch.bfloat16).save_pretrained(base)
    settings = small(train="new-rows+lora", dtype="bfloat16", max_steps=6, lora_learning_rate=1e-5, lora_rank=4)
    pretrain(base, [corpus], tmp_path / "out", settings=settings)
    old, new = tensors(base), tensors(tmp_path / "out")
    values = masters(tmp_path / "out" / "checkpoints" / "checkpoint-6")
    wanted, got = [], []
    for name, tensor in old.items():
        if name.split(".")[-2] in LINEAR:
            assert new[name].dtype == torch.bfloat16
            delta = torch.from_numpy(change(values, name.removesuffix(".weight"), 2.0))
            moved = new[name].double() - tensor.double()
            spacing = tensor.double().abs() * 2**-7
            assert bool(((moved - delta).abs() <= spacing + 1e-9).all()), "one of the two neighbours"
            wanted.append(delta.flatten())
            got.append(moved.flatten())
    expected, found = torch.cat(wanted), torch.cat(got)
    assert float(expected.abs().max()) < 2e-3
    # The slope of what was written on what was wanted: 1 without a bias; rounding to the nearest leaves most of it out.
    assert float(found @ expected / (expected @ expected)) == pytest.approx(1.0, abs=0.5)
    nearest = torch.cat([
        ((t.double() + w.view(t.shape)).to(torch.bfloat16).double() - t.double()).flatten()
        for t, w in zip((t for n, t in old.items() if n.split(".")[-2] in LINEAR), wanted, strict=True)
    ])  # fmt: skip
    assert float(nearest @ expected / (expected @ expected)) < 0.5


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_rows_and_lora_get_the_gradients_that_the_whole_model_has(make_model: Callable[..., Path], kind: str) -> None:
    base = make_base(make_model, kind)
    new_ids = [5, 20, 300]
    ids = torch.tensor([[5, 9, 20, 21, 21, 7, 300, 301, 5, 8]])
    plain = model_of(base).eval()
    plain(input_ids=ids, labels=ids).loss.backward()
    wanted = dict(plain.named_parameters())
    model = model_of(base).eval()
    trainable = prepare(model, "new-rows+lora", open_checkpoint(base), new_ids=new_ids, compute=torch.float32)
    model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in trainable.parameters.items():
        if name.endswith("new_rows"):
            expected = wanted[name.replace("new_rows", "weight")].grad
            torch.testing.assert_close(parameter.grad, expected[new_ids], rtol=1e-4, atol=1e-6)
        elif ".lora_B." in name:
            place = name.partition(".lora_B.")[0]
            a = trainable.parameters[f"{place}.lora_A.default.weight"]
            expected = 2.0 * wanted[f"{place}.weight"].grad @ a.detach().T
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)
    frozen = {name for name, p in model.named_parameters() if p.grad is None}
    assert any("base_layer" in name for name in frozen)
    assert all("lora" in n or "new_rows" in n for n, _ in model.named_parameters() if n not in frozen)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama-tied", {"train": "new-rows+lora", "dtype": "bfloat16"}),
        ("llama", {"train": "head:0.3,new-rows+lora", "save_total_limit": 2}),
        ("llama", {"train": "embeddings+lora:0.5,lora", "save_steps": 4}),
    ],
)
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    base = make_base(make_model, kind)
    if changes.get("dtype"):
        model_of(base, torch.bfloat16).save_pretrained(base)
    settings = small(max_steps=14, **changes)
    pretrain(base, [corpus], tmp_path / "whole", settings=settings)
    for step in (5, 8, 12):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
            interrupt(patch, step)
            pretrain(base, [corpus], tmp_path / "parts", settings=settings)
    pretrain(base, [corpus], tmp_path / "parts", settings=settings)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_rates_of_rows_and_lora(make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    settings = small(
        train="new-rows+lora", max_steps=1, head_learning_rate=3e-3, lora_learning_rate=7e-4, warmup_steps=0
    )
    pretrain(make_base(make_model, "llama"), [corpus], tmp_path / "out", settings=settings)
    state = torch.load(tmp_path / "out/checkpoints/checkpoint-1/optimizer.pt", weights_only=True)
    assert sorted({group["initial_lr"] for group in state["param_groups"]}) == [7e-4, 3e-3, 1e-2]


def test_trained_layers_are_carried_over(make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    base = make_base(make_model, "llama-tied")
    adapted = tmp_path / "adapted"
    pretrain(base, [corpus], adapted, settings=small(train="new-rows+lora", max_steps=3))
    manifest = propagate(base, adapted, base, tmp_path / "carried", method="swap")
    assert manifest["measures"]["trained_tensors"] == 14
    wanted, got = tensors(adapted), tensors(tmp_path / "carried")
    assert all(torch.allclose(wanted[name], got[name], atol=1e-6) for name in wanted)
    said: list[str] = []
    propagate(base, adapted, base, tmp_path / "left", method="swap", backbone="instruct", warn=said.append)
    assert any("14 tensors" in line for line in said)


def test_bad_input_is_one_sentence(make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    base = make_base(make_model, "llama")

    def train(**changes: Any) -> None:
        pretrain(base, [corpus], tmp_path / "out", settings=small(max_steps=1, **changes), force=True)

    with pytest.raises(UserError, match=r"--lora-layers '2'.*0 to 1"):
        train(train="lora", lora_layers="2")
    with pytest.raises(UserError, match="--lora-layers 'some'"):
        train(train="lora", lora_layers="some")
    with pytest.raises(UserError, match=r"--lora-targets 'wq'.*q_proj"):
        train(train="lora", lora_targets=("wq",))
    with pytest.raises(UserError, match="--new-from"):
        train(train="new-rows+lora", new_from=None)
    with pytest.raises(UserError, match="--lora-rank"):
        settings_of(lora_rank=0)
