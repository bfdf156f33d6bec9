"""A tied model that gets a head of its own."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from darumeru.errors import UserError
from lep import propagate
from lep.model.checkpoint import open_checkpoint
from lep.model.manifest import read_manifest
from lep.model.untie import untied
from lep.pretraining.job import pretrain
from support.pretraining import NEW_FROM, documents, make_base, model_of, small

IDS = torch.arange(5, 30)[None]


@pytest.mark.parametrize("kind", ["llama-tied", "qwen2", "gpt2", "gemma3"])
def test_an_untied_model_computes_the_same(make_model: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    base = make_base(make_model, kind)
    result = untied(open_checkpoint(base), tmp_path / "untied")
    assert not result.embeddings.tied
    old, new = model_of(base).eval(), model_of(result.folder).eval()
    assert new.get_input_embeddings().weight is not new.get_output_embeddings().weight
    with torch.no_grad():
        assert torch.equal(old(input_ids=IDS).logits, new(input_ids=IDS).logits)


def test_the_shards_of_a_large_model_stay_what_they_are(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = make_base(make_model, "llama-tied")
    sharded = tmp_path / "sharded"
    model_of(base).save_pretrained(sharded, max_shard_size="20KB")
    (sharded / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    folder = untied(open_checkpoint(sharded), tmp_path / "untied").folder
    there = json.loads((folder / "model.safetensors.index.json").read_text())
    place = index["weight_map"]["model.embed_tokens.weight"]
    assert there["weight_map"] == dict(sorted({**index["weight_map"], "lm_head.weight": place}.items()))
    linked = [f for f in set(there["weight_map"].values()) if (folder / f).samefile(sharded / f)]
    assert len(linked) == len(set(there["weight_map"].values())) - 1
    model_of(folder)


def test_embedding_and_head_are_trained_apart(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = make_base(make_model, "llama-tied")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    out = tmp_path / "out"
    manifest = pretrain(base, [corpus], out, settings=small(train="new-rows+lora", max_steps=3, untie=True))
    assert manifest["settings"]["untie"] is True
    assert (read_manifest(out) or {})["inputs"]["model"]["name"] == base.name
    first, trained = model_of(base), model_of(out)
    start = first.get_input_embeddings().weight
    for module in (trained.get_input_embeddings(), trained.get_output_embeddings()):
        moved = (module.weight != start).any(dim=1).nonzero().squeeze(1)
        assert NEW_FROM <= int(moved.min()) <= int(moved.max()) < 400
    assert not torch.equal(trained.get_input_embeddings().weight, trained.get_output_embeddings().weight)
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert not (out / "untied").exists()
    with pytest.raises(UserError, match="head of its own already"):
        pretrain(out, [corpus], tmp_path / "again", settings=small(untie=True))


@pytest.mark.parametrize("method", ["delta", "auto"])
def test_a_head_of_its_own_is_carried_over_to_a_tied_instruct_model(
    make_model: Callable[..., Path], tmp_path: Path, method: str
) -> None:
    base = make_base(make_model, "llama-tied")
    instruct = tmp_path / "instruct"
    shutil.copytree(base, instruct)
    model = model_of(base)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(instruct)
    adapted = untied(open_checkpoint(base), tmp_path / "adapted").folder
    trained = model_of(adapted)
    with torch.no_grad():
        trained.get_output_embeddings().weight[200] += 0.5  # as training the head would
    trained.save_pretrained(adapted)
    manifest = propagate(base, adapted, instruct, tmp_path / "out", method=method, texts=[" ".join(documents(4))])
    result, own = model_of(tmp_path / "out"), model.get_input_embeddings().weight
    assert manifest["inputs"]["base"]["name"] == base.name
    assert manifest["inputs"]["instruct"]["name"] == "instruct"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == set()
    if method == "delta":  # each token moves as the instruct model moved it
        moved = own.clone()
        moved[200] += 0.5
        assert torch.allclose(result.get_input_embeddings().weight, own, atol=1e-5)
        assert torch.allclose(result.get_output_embeddings().weight, moved, atol=1e-5)
