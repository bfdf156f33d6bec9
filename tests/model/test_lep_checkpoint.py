"""A model folder is read and written tensor by tensor, for every architecture that is promised."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from darumeru.errors import DarumeruError, UserError
from lep.model.checkpoint import config_with, gather_mixed, open_checkpoint, write_checkpoint
from lep.model.folders import folder_fingerprint, new_folder
from lep.model.shards import NewTensor, read_rows
from support.lep_models import ARCHITECTURES, SEEN

TIED = {"llama-tied", "qwen2", "gemma2", "gemma3", "gpt2", "gemma3-multimodal", "qwen3-vl"}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_rewritten_model_loads_with_its_new_rows(kind: str, make_model: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    folder = make_model("old", kind)
    before = folder_fingerprint(folder)
    old = open_checkpoint(folder)
    found = old.embeddings
    assert (found.rows, found.dim, found.tied) == (300, 16, kind in TIED)
    assert (found.bias is not None) == (kind == "phi")

    fresh = torch.randn(320, 16, generator=torch.Generator().manual_seed(1))
    replace = {found.input.name: NewTensor(found.input.dtype, (320, 16), lambda: fresh.split(100))}
    if found.head is not None:
        replace[found.head.name] = NewTensor(found.head.dtype, (320, 16), lambda: (2 * fresh).split(64))
    if found.bias is not None:
        replace[found.bias.name] = NewTensor(found.bias.dtype, (320,), lambda: [torch.arange(320.0)])
    config = config_with(old.config, old_rows=300, rows=320, ids={0: 7, 1: 1})
    with new_folder(tmp_path / "new", inputs=[folder]) as place:
        write_checkpoint(old, place, replace=replace, config=config)

    model = getattr(transformers, old.architecture).from_pretrained(tmp_path / "new")
    assert torch.equal(model.get_input_embeddings().weight, fresh)
    assert torch.equal(model.get_output_embeddings().weight, fresh if found.tied else 2 * fresh)
    if found.bias is not None:
        assert torch.equal(model.get_output_embeddings().bias, torch.arange(320.0))
    assert model.config.get_text_config().vocab_size == 320
    assert model.config.get_text_config().bos_token_id == 7
    lost = {
        name: value for name, value in model.config.to_dict().items() if name in SEEN or name == "image_token_index"
    }
    assert set(lost.values()) == ({-1} if lost else set()), "tokens of images are not in the new vocabulary"
    original = getattr(transformers, old.architecture).from_pretrained(folder).state_dict()
    for name, value in model.state_dict().items():
        if value.shape[:1] != (320,):
            assert torch.equal(value, original[name]), name
    assert folder_fingerprint(folder) == before


def test_shards_and_links(make_model: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(make_model("whole", "mistral"))
    model.save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    old = open_checkpoint(tmp_path / "sharded")
    assert len(old.metadata) > 2
    found = old.embeddings
    assert found.head is not None
    zeros = NewTensor("F32", (300, 16), lambda: [torch.zeros(300, 16)])
    with new_folder(tmp_path / "new") as place:
        write_checkpoint(old, place, replace={found.input.name: zeros}, config=old.config, link=True)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    assert again.get_input_embeddings().weight.abs().max() == 0
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    linked = [file.name for file in old.metadata if file.samefile(tmp_path / "new" / file.name)]
    assert len(linked) == len(old.metadata) - 1 and found.input.file.name not in linked


def test_gather_rows_in_any_order(make_model: Callable[..., Path]) -> None:
    found = open_checkpoint(make_model("m")).embeddings.input
    whole = read_rows(found, 0, found.shape[0])
    rows = np.array([7, 3, 4, 5, 299, 0, 3])
    assert torch.equal(gather_mixed(found, rows), whole[torch.from_numpy(rows)])


def test_truncated_shard_is_named(make_model: Callable[..., Path]) -> None:
    folder = make_model("m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="is truncated"):
        open_checkpoint(folder)


def test_other_formats_and_missing_folders_are_named(make_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_model("m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="another format"):
        open_checkpoint(folder)
    with pytest.raises(UserError, match=r"There is no folder \.\./nowhere"):
        open_checkpoint("../nowhere")
    config = json.loads((folder / "config.json").read_text())
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch", "architectures": ["Nonesuch"]}))
    with pytest.raises(UserError, match="does not know the model"):
        open_checkpoint(folder)


def test_tied_configuration_with_another_head_is_refused(make_model: Callable[..., Path]) -> None:
    folder = make_model("m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UserError, match="differs from"):
        open_checkpoint(folder)


def test_hub_ids_are_fetched(make_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = make_model("m")
    asked = []

    def snapshot_download(repo_id: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo_id, revision, "*.safetensors" in allow_patterns, any("bin" in p for p in allow_patterns)))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert open_checkpoint("owner/name", revision="main").folder == folder
    assert asked == [("owner/name", "main", True, False)]


def test_failed_writes_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as place:
        (place / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DarumeruError, match="No space left"), new_folder(tmp_path / "out") as place:
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(UserError, match="not empty"), new_folder(tmp_path / "full"):
        pass
    with pytest.raises(UserError, match="also an input"), new_folder(tmp_path / "full", inputs=[tmp_path / "full"]):
        pass
    with new_folder(tmp_path / "full", force=True) as place:
        (place / "other").write_text("y")
    assert [p.name for p in tmp_path.rglob("*")] == ["full", "other"]


def test_a_full_disk_is_noticed_before_writing(
    make_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    old = open_checkpoint(make_model("m"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DarumeruError, match=r"needs 0\.00 GB"), new_folder(tmp_path / "out") as place:
        write_checkpoint(old, place, replace={}, config=old.config)
    assert not (tmp_path / "out").exists()


def test_one_changed_row_of_a_large_shard_changes_the_fingerprint(
    tmp_path: Path, make_model: Callable[..., Path]
) -> None:
    from safetensors.torch import load_file, save_file

    first = make_model("first", rows=600_000)
    second = tmp_path / "second"
    shutil.copytree(first, second)
    tensors = load_file(second / "model.safetensors")
    tensors["model.embed_tokens.weight"][300_001] += 1
    save_file(tensors, second / "model.safetensors", {"format": "pt"})
    assert (first / "model.safetensors").stat().st_size == (second / "model.safetensors").stat().st_size
    assert folder_fingerprint(first) != folder_fingerprint(second)
