"""The pull back to where weights began."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lep.model.checkpoint import open_checkpoint
from lep.pretraining.anchor import Anchor
from lep.pretraining.job import pretrain
from lep.pretraining.row_adamw import RowAdamW, UsedRows
from lep.pretraining.trainable import prepare
from support.pretraining import documents, interrupt, losses, make_base, model_of, small


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    return make_base(make_model, "llama")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


@pytest.mark.parametrize("what", ["embeddings+lora", "new-rows+lora", "all"])
def test_old_weights_go_a_share_of_the_way_back(base: Path, what: str) -> None:
    source = open_checkpoint(base)
    model = model_of(base)
    trainable = prepare(model, what, source, new_ids=[7, 300], compute=torch.float32)
    first = {name: p.detach().clone() for name, p in trainable.parameters.items()}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable.parameters.values():
            parameter += torch.randn_like(parameter)
    moved = {name: p.detach().clone() for name, p in trainable.parameters.items()}
    Anchor(trainable, source, 50.0, [7, 300]).pull(torch.optim.SGD(trainable.parameters.values(), lr=0.002))
    for name, parameter in trainable.parameters.items():
        if ".lora_A." in name or name.endswith(".new_rows"):
            assert torch.equal(parameter, moved[name])
            continue
        wanted = moved[name] - 0.1 * (moved[name] - first[name])
        if "embed_tokens" in name or "lm_head" in name:
            wanted[[7, 300]] = moved[name][[7, 300]]
        torch.testing.assert_close(parameter.detach(), wanted)


def test_a_step_pulls_once_whatever_else_the_process_trained() -> None:
    def moved() -> float:
        weight = torch.nn.Parameter(torch.ones(4, 2))
        weight.grad = torch.zeros_like(weight)
        groups = [{"params": [weight], "lr": 0.1, "weight_decay": 0.0, "row_decay": 0.0}]

        def halve(_: torch.optim.Optimizer) -> None:
            with torch.no_grad():
                weight.mul_(0.5)

        RowAdamW(groups, UsedRows(4, torch.device("cpu")), after=halve, lr=0.1).step()
        return float(weight.detach()[0, 0])

    assert moved() == 0.5
    torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])  # makes AdamW's own step call hooks, too
    assert moved() == 0.5


def test_a_training_pulls_as_often_after_another_one(base: Path, corpus: Path, tmp_path: Path) -> None:
    def weights(name: str) -> torch.Tensor:
        settings = small(train="embeddings", max_steps=3, anchor=5.0)
        pretrain(base, [corpus], tmp_path / name, settings=settings)
        return model_of(tmp_path / name).get_input_embeddings().weight

    torch.optim.AdamW.step = getattr(
        torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step
    )  # as in a new process
    first = weights("first")
    torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])
    assert torch.equal(weights("second"), first)


def test_a_training_stays_nearer_and_resumes(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distance(folder: Path) -> tuple[float, float]:
        values = load_file(folder / "checkpoints" / "checkpoint-9" / "trained" / "weights.safetensors")
        start = model_of(base).get_input_embeddings().weight.detach()
        old = (values["model.embed_tokens.weight"] - start)[:390].norm()
        return float(old), float(sum(v.norm() for name, v in values.items() if ".lora_B." in name))

    settings = small(train="embeddings+lora", max_steps=9, lora_learning_rate=5e-3, warmup_steps=0)
    pretrain(base, [corpus], tmp_path / "free", settings=settings)
    anchored = settings.model_copy(update={"anchor": 20.0})
    manifest = pretrain(base, [corpus], tmp_path / "held", settings=anchored)
    assert manifest["settings"]["anchor"] == 20.0
    for held, free in zip(distance(tmp_path / "held"), distance(tmp_path / "free"), strict=True):
        assert 0 < held < 0.8 * free
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
        interrupt(patch, 5)
        pretrain(base, [corpus], tmp_path / "parts", settings=anchored)
    pretrain(base, [corpus], tmp_path / "parts", settings=anchored)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "held"), abs=1e-6)
