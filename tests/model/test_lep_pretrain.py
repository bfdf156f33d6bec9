"""Continued pre-training: blocks, loss, what is trained, and a training that survives whatever happens to it."""

import errno
import itertools
import json
import random
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from darumeru.errors import DarumeruError, NotFiniteError, UserError
from darumeru.record.folder import exclusive
from lep import cli
from lep.model.checkpoint import open_checkpoint
from lep.model.shards import read_rows
from lep.pretraining import callbacks, hidden, job, trainer
from lep.pretraining.blocks import (
    Collator,
    TrainingRows,
    cut_at_paragraphs,
    open_blocks,
    pack_rows,
    paragraph_tokens,
    start_token,
)
from lep.pretraining.checkpoints import checkpoints
from lep.pretraining.cross_entropy import Logits, linear_cross_entropy
from lep.pretraining.hidden import HiddenStates
from lep.pretraining.job import pretrain
from lep.pretraining.row_adamw import RowAdamW, UsedRows
from lep.pretraining.schedule import Part, schedule
from lep.pretraining.settings import settings_of
from lep.pretraining.sweep import Trial, pick, sweep
from lep.pretraining.trainable import check_forward, prepare
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level
from support.pretraining import NEW_FROM, documents, interrupt, losses, make_base, model_of, small


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    return make_base(make_model, "llama")


def tokenizer_of(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: read_rows(t, 0, t.shape[0]) for name, t in open_checkpoint(folder).tensors.items()}


# Blocks.


def test_blocks_are_cut_at_paragraphs_only() -> None:
    draw = random.Random(1)
    for _ in range(200):
        lengths = [draw.randint(1, 30) for _ in range(draw.randint(1, 12))]
        starts = np.cumsum([0, *lengths[:-1]]).tolist()
        total, room = sum(lengths), draw.randint(4, 40)
        blocks = list(cut_at_paragraphs(starts, total, room))
        assert all(begin in starts and begin < stop and stop - begin <= room for begin, stop in blocks)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(blocks))
        covered = sum(stop - begin for begin, stop in blocks)
        assert covered == total - sum(max(0, length - room) for length in lengths)


def test_a_block_is_whole_paragraphs_of_one_document(base: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(base)
    texts = [*documents(), "<|end|> is no control token here", "слово " * 100]
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    blocks = open_blocks([path], tokenizer, tmp_path / "blocks", block_size=40, scripts=("Cyrillic",))
    start, end = start_token(tokenizer), tokenizer.eos_token_id
    seen = []
    for index in range(len(blocks)):
        ids = blocks[index].tolist()
        assert ids[0] == start
        assert len(ids) <= 40
        assert end not in ids[1:-1]
        text = tokenizer.decode(ids[1:-1] if ids[-1] == end else ids[1:])
        source = next(t for t in texts if f"\n{text}" in f"\n{t}")
        assert ids[-1] != end or source.endswith(text)
        seen.append(text)
    short = [text for text in texts if len(text) < 200]
    assert "".join(seen).replace("\n", "").startswith("".join(texts[:5]).replace("\n", ""))
    assert blocks.counts.documents == len(texts)
    assert 0 < blocks.counts.left_out < 0.2  # of the long line only
    assert len(short) < len(texts)
    assert 0.4 < blocks.counts.in_scripts < 0.6

    made = (tmp_path / "blocks" / "tokens.bin").stat().st_mtime_ns
    assert len(open_blocks([path], tokenizer, tmp_path / "blocks", block_size=40, scripts=("Cyrillic",))) == len(blocks)
    assert (tmp_path / "blocks" / "tokens.bin").stat().st_mtime_ns == made
    open_blocks([path], tokenizer, tmp_path / "blocks", block_size=44, scripts=("Cyrillic",))
    assert (tmp_path / "blocks" / "tokens.bin").stat().st_mtime_ns != made


def test_a_long_document_is_read_in_pieces_and_nothing_is_lost(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "\n".join(documents(30))
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps({"text": text}))
    tokenizer = tokenizer_of(base)
    monkeypatch.setattr("lep.pretraining.blocks._PIECE", 300)
    blocks = open_blocks([path], tokenizer, tmp_path / "b", block_size=64)
    got = "".join(tokenizer.decode(blocks[i], skip_special_tokens=True) for i in range(len(blocks)))
    assert got == text
    ends = [blocks[i][-1] == tokenizer.eos_token_id for i in range(len(blocks))]
    assert ends == [False] * (len(blocks) - 1) + [True]


def test_paragraphs_are_found_in_tokens() -> None:
    text = "ab\n\ncd\n ef"
    offsets = [(0, 2), (2, 3), (3, 4), (4, 6), (6, 8), (8, 10)]  # "\n " is one token: no place to begin at
    assert paragraph_tokens(text, offsets) == [0, 3]


def test_packing_holds_each_block_once_and_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(3, 33, size=500)
    rows = pack_rows(lengths, 64, seed=3)
    assert sorted(np.concatenate(rows).tolist()) == list(range(500))
    assert all(lengths[row].sum() <= 64 for row in rows)
    assert lengths.sum() / (64 * len(rows)) > 0.98
    again = pack_rows(lengths, 64, seed=3)
    assert all((a == b).all() for a, b in zip(rows, again, strict=True))


def test_the_order_of_the_data_depends_on_seed_and_step_alone(base: Path, corpus: Path, tmp_path: Path) -> None:
    blocks = open_blocks([corpus], tokenizer_of(base), tmp_path / "b", block_size=48)
    one, two = (TrainingRows(blocks, block_size=48, packing=True, seed=5) for _ in range(2))
    count = len(one.rows)
    walked = [one[index]["row"] for index in range(2 * count)]
    assert [two[index]["row"] for index in reversed(range(2 * count))] == walked[::-1]
    assert sorted(walked[:count]) == sorted(walked[count:]) == list(range(count))
    assert walked[:count] != walked[count:]


# The loss.


@pytest.mark.parametrize(("cap", "scale", "bias"), [(None, 1.0, False), (5.0, 1.0, True), (3.0, 0.25, False)])
def test_the_chunked_loss_and_its_gradients_are_the_plain_ones(cap: float | None, scale: float, bias: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(37, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    offset = torch.randn(50, requires_grad=True) if bias else None
    rows = torch.tensor([3, 40, 49])
    new = weight.detach()[rows].requires_grad_()
    targets = torch.randint(0, 50, (37,))
    targets[::5] = -100
    logits = Logits(scale, cap)
    plain = torch.nn.functional.cross_entropy(
        logits(torch.nn.functional.linear(hidden, weight, offset)), targets, reduction="sum"
    )
    ours = linear_cross_entropy(hidden, weight, targets, bias=offset, new_rows=new, rows=rows, logits=logits, chunk=7)
    torch.testing.assert_close(ours, plain)
    wanted = [hidden, weight, *([offset] if offset is not None else [])]
    expected = torch.autograd.grad(0.3 * plain, wanted)
    *got, got_rows = torch.autograd.grad(0.3 * ours, [*wanted, new])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(got_rows, expected[1][rows])


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return result


def test_logits_of_a_whole_batch_never_exist() -> None:
    hidden, weight = torch.randn(1000, 4, requires_grad=True), torch.randn(500, 4, requires_grad=True)
    with Largest() as largest:
        linear_cross_entropy(hidden, weight, torch.zeros(1000, dtype=torch.long), chunk=10).backward()
    assert largest.size <= 10 * 500


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gemma2", "phi", "gpt2", "gpt-neox", "gemma3-multimodal"])
def test_a_model_gets_the_loss_and_gradients_that_it_has_by_itself(make_model: Callable[..., Path], kind: str) -> None:
    base = make_base(make_model, kind)
    ids = torch.arange(5, 25)[None].repeat(2, 1)
    ids[1] += 100
    plain = model_of(base).eval()
    expected = plain(input_ids=ids, labels=ids).loss
    expected.backward()
    model = model_of(base).eval()
    prepare(model, "embeddings", open_checkpoint(base), compute=torch.float32)
    got = model(input_ids=ids, labels=ids).loss
    got.backward()
    torch.testing.assert_close(got, expected)
    for name in ("get_input_embeddings", "get_output_embeddings"):
        wanted = getattr(plain, name)().weight.grad
        torch.testing.assert_close(getattr(model, name)().weight.grad, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_packed_documents_do_not_see_each_other(make_model: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    base = make_base(make_model, kind)
    blocks = [np.arange(5, 5 + length) * 7 % 380 for length in (9, 17, 12)]
    collate = Collator(0)
    packed = collate([{"row": 0, "blocks": blocks}])
    alone = collate([{"row": i, "blocks": [block]} for i, block in enumerate(blocks)])
    assert packed["tokens"].tolist() == [38]
    assert alone["tokens"].tolist() == [9, 17, 12]
    found = []
    for batch in (packed, alone):
        model = model_of(base).eval()
        trainable = prepare(model, "embeddings", open_checkpoint(base), compute=torch.float32)
        check_forward(trainable, packing=True)
        loss = model(**batch).loss
        loss.backward()
        found.append((loss.detach(), model.get_input_embeddings().weight.grad))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_a_model_that_mixes_packed_documents_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(base)
    trainable = prepare(model, "embeddings", open_checkpoint(base), compute=torch.float32)
    decoder = model.get_decoder()
    plain = decoder.forward
    monkeypatch.setattr(decoder, "forward", lambda position_ids=None, **inputs: plain(**inputs))
    with pytest.raises(UserError, match="--no-packing"):
        check_forward(trainable, packing=True)
    check_forward(trainable, packing=False)
    monkeypatch.setattr(model.config, "final_logit_softcapping", 0.5, raising=False)
    with pytest.raises(UserError, match="logits"):
        check_forward(trainable, packing=False)


# What is trained.


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gemma3"])
def test_new_rows_get_the_gradient_that_they_would_get_in_the_whole_matrix(
    make_model: Callable[..., Path], kind: str
) -> None:
    base = make_base(make_model, kind)
    new_ids = [5, 20, 21, 300]
    ids = torch.tensor([[5, 9, 20, 21, 21, 7, 300, 301, 5, 8]])
    gradients = {}
    for what in ("embeddings", "new-rows"):
        model = model_of(base).eval()
        trainable = prepare(model, what, open_checkpoint(base), new_ids=new_ids, compute=torch.float32)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients[what] = {name: p.grad for name, p in trainable.parameters.items()}
    assert len(gradients["new-rows"]) == (1 if kind != "llama" else 2)
    for name, gradient in gradients["new-rows"].items():
        assert gradient.shape == (4, 16)
        torch.testing.assert_close(gradient, gradients["embeddings"][name.replace("new_rows", "weight")][new_ids])


def test_only_rows_that_a_batch_used_decay() -> None:
    torch.manual_seed(0)
    table = torch.nn.Parameter(torch.randn(10, 3))
    new = torch.nn.Parameter(torch.randn(2, 3))
    plain = torch.nn.Parameter(torch.randn(4))
    before, before_new = table.detach().clone(), new.detach().clone()
    used = UsedRows(10, torch.device("cpu"))
    only = UsedRows(10, torch.device("cpu"), torch.tensor([3, 8]))
    first = RowAdamW(
        [{"params": [table], "lr": 0.5, "weight_decay": 0.0, "row_decay": 0.1},
         {"params": [plain], "lr": 0.5, "weight_decay": 0.1, "row_decay": 0.0}], used,
    )  # fmt: skip
    second = RowAdamW([{"params": [new], "lr": 0.5, "weight_decay": 0.0, "row_decay": 0.1}], only)
    for parameter in (table, new, plain):
        parameter.grad = torch.zeros_like(parameter)
    for record in (used, only):
        record.note(torch.tensor([[2, 8], [8, 7]]))
    values = plain.detach().clone()
    first.step()
    second.step()
    touched = torch.zeros(10, dtype=torch.bool)
    touched[[2, 7, 8]] = True
    torch.testing.assert_close(table.detach(), torch.where(touched[:, None], before * 0.95, before))
    torch.testing.assert_close(new.detach(), before_new * torch.tensor([[1.0], [0.95]]))
    torch.testing.assert_close(plain.detach(), values * 0.95)
    kept = table.detach().clone()
    first.step()  # a step without tokens
    assert torch.equal(table.detach(), kept)


@pytest.mark.parametrize(
    ("kind", "what", "changed"),
    [
        ("llama", "embeddings", ("embed_tokens", "lm_head")),
        ("llama-tied", "embeddings", ("embed_tokens",)),
        ("llama", "head", ("lm_head",)),
        ("llama-tied", "head", ("embed_tokens",)),
        ("llama", "new-rows", ("embed_tokens", "lm_head")),
        ("llama", "embeddings+ends", ("embed_tokens", "lm_head", "layers")),
        ("llama", "all", ("embed_tokens", "lm_head", "layers", "norm")),
    ],
)
def test_what_is_trained_changes_and_nothing_else(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str, what: str, changed: tuple[str, ...]
) -> None:
    base = make_base(make_model, kind, num_hidden_layers=3)
    manifest = pretrain(base, [corpus], tmp_path / "out", settings=small(train=what, max_steps=3))
    old, new = tensors(base), tensors(tmp_path / "out")
    assert set(old) == set(new)
    for name, tensor in old.items():
        moved = any(part in name for part in changed) and not (what == "embeddings+ends" and "layers.1." in name)
        assert torch.equal(tensor, new[name]) != moved, name
    if what == "new-rows":
        for name in (n for n in old if "embed_tokens" in n or "lm_head" in n):
            rows = (old[name] != new[name]).any(dim=1).nonzero().squeeze(1)
            assert int(rows.min()) >= NEW_FROM
            assert int(rows.max()) < 400  # padding rows are no tokens
    state = torch.load(tmp_path / "out" / "checkpoints" / "checkpoint-3" / "optimizer.pt", weights_only=True)
    count = sum(s["exp_avg"].numel() for s in state["state"].values())
    sizes = {name: tensor.numel() for name, tensor in old.items()}
    if what == "new-rows":
        assert count == 2 * (len(tokenizer_of(base)) - NEW_FROM) * 16
    elif what != "embeddings+ends":
        assert count == sum(size for name, size in sizes.items() if any(part in name for part in changed))
    assert manifest["stage"] == "pretrain"
    model_of(tmp_path / "out")


def test_separate_learning_rates(base: Path, corpus: Path, tmp_path: Path) -> None:
    settings = small(train="all", max_steps=4, head_learning_rate=3e-3, rest_learning_rate=1e-4, warmup_steps=0)
    pretrain(base, [corpus], tmp_path / "out", settings=settings)
    state = torch.load(tmp_path / "out/checkpoints/checkpoint-4/optimizer.pt", weights_only=True)
    assert sorted({group["initial_lr"] for group in state["param_groups"]}) == [1e-4, 3e-3, 1e-2]


def test_masters_keep_what_bfloat16_would_lose(make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    base = make_base(make_model, "llama-tied")
    model = model_of(base, torch.bfloat16)
    model.save_pretrained(base)
    settings = small(dtype="bfloat16", learning_rate=1e-5, max_steps=6, warmup_steps=0, weight_decay=0.0)
    pretrain(base, [corpus], tmp_path / "out", settings=settings)
    last = tmp_path / "out" / "checkpoints" / "checkpoint-6"
    from safetensors.torch import load_file

    (master,) = load_file(last / "trained" / "weights.safetensors").values()
    stored = tensors(last)["model.embed_tokens.weight"]
    assert master.dtype == torch.float32
    assert stored.dtype == torch.bfloat16
    before = tensors(base)["model.embed_tokens.weight"].float()
    moved = (master - before).abs()
    assert 1e-5 < float(moved.max()) < 1e-4  # below the spacing of most bfloat16 numbers here
    assert torch.equal(stored, master.to(torch.bfloat16))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


# A training.


def test_a_training_lowers_bits_per_byte_and_says_so(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darumeru.data.texts import read_all
    from lep.measure.bits import bits_per_byte

    said: list[str] = []
    manifest = pretrain(
        base, [corpus], tmp_path / "out", held_out=[f"here={corpus}"], settings=small(max_steps=12), warn=said.append
    )
    assert said == []
    measures = manifest["measures"]
    bits = measures["bits_per_byte"]
    assert bits["after"] < bits["before"] - 0.1
    assert bits["after"] == pytest.approx(bits_per_byte(tmp_path / "out", read_all([corpus])), rel=1e-5)
    assert bits["before"] == pytest.approx(bits_per_byte(base, read_all([corpus])), rel=1e-5)
    assert set(measures["share_of_new_tokens"]) == {"before", "after"}
    assert measures["steps"] == 12
    history = [json.loads(line) for line in (tmp_path / "out" / "history.jsonl").read_text().splitlines()]
    assert measures["tokens"] == history[-1]["num_input_tokens_seen"] > 0
    assert measures["loss"] == losses(tmp_path / "out")[12] < losses(tmp_path / "out")[1]
    assert [line["step"] for line in history if "eval_bits_per_byte" in line] == [0, 3, 6, 9, 12]
    for step in (3, 6, 9, 12):
        folder = tmp_path / "out" / "checkpoints" / f"checkpoint-{step}"
        model_of(folder)
        tokenizer_of(folder)
        state = json.loads((folder / "trainer_state.json").read_text())
        assert state["global_step"] == step
        assert state["num_input_tokens_seen"] > 0
    # Done is done: nothing is trained again.
    monkeypatch.setattr(job._Training, "_train", None)
    assert pretrain(base, [corpus], tmp_path / "out", settings=small(max_steps=12)) == manifest


def test_one_epoch_reads_each_block_once(base: Path, corpus: Path, tmp_path: Path) -> None:
    manifest = pretrain(base, [corpus], tmp_path / "out", settings=small(max_steps=-1, packing=False))
    measures = manifest["measures"]
    assert measures["tokens"] == measures["blocks"]["tokens"]
    assert measures["steps"] == -(-measures["blocks"]["blocks"] // 4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama-tied", {"train": "embeddings", "dtype": "bfloat16"}),
        ("llama", {"train": "new-rows"}),
        ("llama", {"train": "head:0.5,embeddings", "save_steps": 4}),
        ("llama", {"train": "all", "packing": False}),
    ],
)
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    base = make_base(make_model, kind)
    settings = small(max_steps=12, logging_steps=2, **changes)
    pretrain(base, [corpus], tmp_path / "whole", held_out=[str(corpus)], settings=settings)
    for step in (2, 7, 11):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
            interrupt(patch, step)
            pretrain(base, [corpus], tmp_path / "parts", held_out=[str(corpus)], settings=settings)
    (tmp_path / "parts" / "checkpoints" / ".unfinished" / "checkpoint-99").mkdir(parents=True)
    (tmp_path / "parts" / "checkpoints" / "checkpoint-77").mkdir()  # without trainer_state.json: not whole
    pretrain(base, [corpus], tmp_path / "parts", held_out=[str(corpus)], settings=settings)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_checkpoint_that_was_changed_is_refused_and_the_one_before_it_taken(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, output = small(max_steps=8, save_steps=3), tmp_path / "out"
    pretrain(base, [corpus], tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
        interrupt(patch, 7)
        pretrain(base, [corpus], output, settings=settings)
    for name in ("optimizer.pt", "trainer_state.json", "trained/model.safetensors"):
        file = output / "checkpoints" / "checkpoint-6" / name
        file = file if file.exists() else next(file.parent.iterdir())
        data = file.read_bytes()
        file.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
        with pytest.raises(DarumeruError, match=rf"{file.name}' is not what the training wrote. Delete the folder .*6"):
            pretrain(base, [corpus], output, settings=settings)
        file.write_bytes(data)
    file.unlink()
    shutil.rmtree(output / "checkpoints" / "checkpoint-6")
    tokens = output / "blocks" / "tokens.bin"
    tokens.write_bytes(b"\0" * tokens.stat().st_size)
    pretrain(base, [corpus], output, settings=settings)
    whole, again = tensors(tmp_path / "whole"), tensors(output)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_hidden_states_on_a_full_disk_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write through a memory map would end the process with SIGBUS."""
    kept = HiddenStates(tmp_path / "h.bin", rows=3, width=2, dim=4, dtype=torch.float32, limit=1 << 20)
    states, rows = torch.arange(8, dtype=torch.float32).view(1, 2, 4), torch.tensor([1])
    kept.write(rows, states)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hidden.os, "pwrite", full)
    kept.write(torch.tensor([0]), states)
    found = kept.read(rows, 2)
    assert found is not None
    assert torch.equal(found, states)
    assert kept.read(torch.tensor([0]), 2) is None


def test_a_training_that_goes_on_is_not_deleted(base: Path, corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "pretrain.json").write_text('{"settings": {}}')
    with exclusive(output), pytest.raises(UserError, match="Another process"):
        pretrain(base, [corpus], output, settings=small(), force=True)
    assert (output / "pretrain.json").exists()


def test_hidden_states_that_are_kept_change_nothing(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lep.pretraining import hidden

    read = []
    plain = hidden.HiddenStates.read

    def counted(self: Any, rows: torch.Tensor, width: int) -> Any:
        found = plain(self, rows, width)
        read.append(found is not None)
        return found

    monkeypatch.setattr(hidden.HiddenStates, "read", counted)
    settings = {"train": "head:0.9,embeddings", "max_steps": -1, "num_train_epochs": 3}
    pretrain(base, [corpus], tmp_path / "plain", settings=small(**settings))
    assert not read
    pretrain(base, [corpus], tmp_path / "kept", settings=small(**settings, cache_hidden_gb=0.1))
    assert read.count(True) > len(read) / 2
    assert losses(tmp_path / "kept") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)
    assert not (tmp_path / "kept" / "hidden").exists()


def test_schedules() -> None:
    assert schedule("embeddings", 10) == [Part("embeddings", 0, 10)]
    assert schedule("head:0.1,new-rows:0.25,all", 20) == [
        Part("head", 0, 2), Part("new-rows", 2, 7), Part("all", 7, 20),
    ]  # fmt: skip
    assert schedule("head:0.01,all", 2) == [Part("head", 0, 1), Part("all", 1, 2)]
    for wrong in ("heads", "head,all", "head:0.5", "head:1.5,all", "head:0.6,new-rows:0.4,all", ""):
        with pytest.raises(UserError, match="--train"):
            settings_of(train=wrong)
    with pytest.raises(UserError, match="2 parts"):
        schedule("head:0.5,all", 1)


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_checkpoints(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trainer.PretrainTrainer.training_step

    def spoiled(self: Any, model: Any, inputs: Any, number: Any = None) -> torch.Tensor:
        loss = plain(self, model, inputs, number)
        if self.state.global_step == 4:
            model.get_input_embeddings().weight.grad[0, 0] = float("nan")
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(trainer.PretrainTrainer, "training_step", spoiled)
        with pytest.raises(NotFiniteError, match="step 5"):
            pretrain(base, [corpus], tmp_path / "out", settings=small())
    ((step, folder),) = checkpoints(tmp_path / "out" / "checkpoints")
    assert step == 3
    assert all(bool(p.isfinite().all()) for p in model_of(folder).parameters())


def test_a_full_disk_keeps_the_checkpoints_before(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trainer.write_checkpoint

    def full(source: Any, folder: Path, **settings: Any) -> None:
        if folder.name == "checkpoint-6":
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(source, folder, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_checkpoint", full)
        with pytest.raises(DarumeruError, match=r"step 6 could not be written.*resumes"):
            pretrain(base, [corpus], tmp_path / "out", settings=small())
    assert [step for step, _ in checkpoints(tmp_path / "out" / "checkpoints")] == [3]
    assert pretrain(base, [corpus], tmp_path / "out", settings=small())["measures"]["steps"] == 8


def test_older_checkpoints_are_models_only_or_go(base: Path, corpus: Path, tmp_path: Path) -> None:
    pretrain(base, [corpus], tmp_path / "all", settings=small(save_steps=2))
    place = tmp_path / "all" / "checkpoints"
    assert [step for step, _ in checkpoints(place)] == [2, 4, 6, 8]
    assert [(f / "optimizer.pt").exists() for _, f in checkpoints(place)] == [False, False, True, True]
    pretrain(base, [corpus], tmp_path / "few", settings=small(save_steps=2, save_total_limit=2))
    assert [step for step, _ in checkpoints(tmp_path / "few" / "checkpoints")] == [6, 8]


# Mistakes.


def test_what_a_kill_left_of_older_checkpoints_goes_at_the_end(base: Path, corpus: Path, tmp_path: Path) -> None:
    """The process was killed after the last checkpoint, before it had thinned the older ones out, and is started again."""
    output = tmp_path / "out"
    settings = small(save_steps=2)
    pretrain(base, [corpus], output, settings=settings)
    first = output / "checkpoints" / "checkpoint-2"
    before = sorted(path.name for path in first.iterdir())
    (first / "trained").mkdir()
    for name in ("trained/weights.safetensors", "optimizer.pt", "scheduler.pt"):
        (first / name).write_bytes(b"left")
    (output / "lep.json").unlink()
    pretrain(base, [corpus], output, settings=settings)
    assert sorted(path.name for path in first.iterdir()) == before


def test_an_output_folder_of_another_training_is_left_alone(base: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pretrain(base, [corpus], out, settings=small(max_steps=2))
    with pytest.raises(UserError, match=r"learning_rate 0.01 there, 0.001 now"):
        pretrain(base, [corpus], out, settings=small(max_steps=2, learning_rate=1e-3))
    other = tmp_path / "other.txt"
    other.write_text("\n".join(documents(5)))
    with pytest.raises(UserError, match="another corpus"):
        pretrain(base, [other], out, settings=small(max_steps=2))
    done = pretrain(base, [other], out, settings=small(max_steps=2), force=True)
    assert done["settings"]["corpus"] == ["other.txt"]
    foreign = tmp_path / "foreign"
    (foreign / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    with pytest.raises(UserError, match="checkpoints of a run that this command did not begin"):
        pretrain(base, [corpus], foreign, settings=small())
    with pytest.raises(UserError, match="inputs are never changed"):
        pretrain(base, [corpus], base, settings=small())


def test_bad_input_is_one_sentence(base: Path, corpus: Path, tmp_path: Path, make_model: Callable[..., Path]) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"no text in .*empty\.txt"):
        pretrain(base, [empty], out, settings=small())
    narrow = save_byte_level(make_model("narrow", "llama", rows=300), ENGLISH + RUSSIAN, 400)
    with pytest.raises(UserError, match=r"300 rows for 400 tokens.*lep init"):
        pretrain(narrow, [corpus], tmp_path / "o2", settings=small())
    with pytest.raises(UserError, match="--new-from"):
        pretrain(base, [corpus], tmp_path / "o3", settings=small(train="new-rows", new_from=None))
    with pytest.raises(UserError, match="no multiple of 3"):
        pretrain(base, [corpus], tmp_path / "o4", settings=small(per_device_train_batch_size=3))
    with pytest.raises(UserError, match="context of 64"):
        pretrain(base, [corpus], tmp_path / "o5", settings=small(block_size=65))
    with pytest.raises(UserError, match="need --suite"):
        pretrain(base, [corpus], tmp_path / "o6", settings=small(stop_if=("loss > 3",)))
    with pytest.raises(UserError, match=r"--learning-rate: -1\.0 is not possible"):
        settings_of(learning_rate=-1.0)
    with pytest.raises(UserError, match="--lr-scheduler-type: 'cosin'"):
        settings_of(lr_scheduler_type="cosin")


def test_doubtful_input_is_warned_about(base: Path, tmp_path: Path) -> None:
    english = tmp_path / "en.txt"
    english.write_text("\n".join([*ENGLISH * 3, "word " * 300]))
    said: list[str] = []
    pretrain(base, [english], tmp_path / "out", settings=small(max_steps=2), warn=said.append)
    assert any("Only 0.0% of the corpus's letters are Cyrillic" in line for line in said)
    assert any("left out" in line for line in said)
    assert any("never gets warm" in line for line in said)
    assert any("--held-out" in line for line in said)


# Evaluation along the way, search, command line.


def test_the_benchmark_along_the_way_may_end_the_training(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import TrainerCallback

    from darumeru.watch import StopFileCallback

    made: dict[str, Any] = {}

    class DarumeruCallback(TrainerCallback):  # type: ignore[misc]
        def __init__(self, suite: str, **settings: Any) -> None:
            made.update(suite=suite, **settings)

        def attach(self, trainer: Any) -> None:
            trainer.add_callback(self)

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                (Path(args.output_dir) / "best.json").write_text('{"checkpoint": "checkpoint-3"}')

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                control.should_training_stop = True

    monkeypatch.setitem(
        sys.modules,
        "darumeru.watch",
        types.SimpleNamespace(DarumeruCallback=DarumeruCallback, StopFileCallback=StopFileCallback),
    )
    settings = small(
        train="head:0.9,all",
        suite="darumeru-train",
        eval_every=2,
        data="d",
        stop_if=("loss > 3",),
        keep_best="micro_avg",
    )
    manifest = pretrain(base, [corpus], tmp_path / "out", settings=settings)
    assert manifest["measures"]["steps"] == 5
    assert manifest["measures"]["stopped_before"] == 8
    assert manifest["measures"]["best_checkpoint"] == "checkpoint-3"
    best, result = tensors(tmp_path / "out" / "checkpoints" / "checkpoint-3"), tensors(tmp_path / "out")
    assert all(torch.equal(best[name], result[name]) for name in best)
    assert made["suite"] == "darumeru-train"
    assert made["every"] == 2
    assert made["rules"] == ("loss > 3",)
    assert made["keep_best"] == "micro_avg"
    assert made["runs"] == tmp_path / "out" / "runs"
    model_of(tmp_path / "out")


def test_a_watch_beside_the_training_may_end_it(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`darumeru watch OUTPUT/checkpoints --stop-if …` writes STOP there."""
    plain = callbacks.Flow.on_step_end

    def writes(self: Any, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == 4:
            (tmp_path / "out" / "checkpoints" / "STOP").write_text("darucopy_ru < 0.9 for 3")
        plain(self, args, state, control, **others)

    monkeypatch.setattr(callbacks.Flow, "on_step_end", writes)
    manifest = pretrain(base, [corpus], tmp_path / "out", settings=small())
    assert manifest["measures"]["steps"] == 5, "at the next step"
    assert manifest["measures"]["stopped_before"] == 8
    model_of(tmp_path / "out")


def test_the_search_for_a_learning_rate(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(max_steps=20)
    arguments = {"held_out": [str(corpus)], "settings": settings, "fraction": 0.2}
    trials = sweep(base, [corpus], tmp_path / "s", [1e-6, 1e-2], **arguments)  # type: ignore[arg-type]
    assert [trial.learning_rate for trial in trials] == [1e-6, 1e-2]
    assert pick(trials) is trials[1]
    manifest = json.loads((tmp_path / "s" / "lr-0.01" / "lep.json").read_text())
    assert manifest["measures"]["steps"] == 4
    assert manifest["measures"]["bits_per_byte"]["after"] == trials[1].bits_per_byte
    monkeypatch.setattr(job._Training, "_train", None)  # a second time, everything is there
    assert sweep(base, [corpus], tmp_path / "s", [1e-6, 1e-2], **arguments) == trials  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--held-out"):
        sweep(base, [corpus], tmp_path / "s2", [1e-3], held_out=[], settings=settings)
    with pytest.raises(UserError, match="--sweep-lr"):
        sweep(base, [corpus], tmp_path / "s2", [1e-3, 1e-3], held_out=[str(corpus)], settings=settings)


def test_the_search_asks_the_benchmark_that_it_is_told_to(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import darumeru.evaluation

    asked: list[Any] = []

    def execute(plan: Any, runs: Path) -> Any:
        asked.append(plan)
        return types.SimpleNamespace(scores=types.SimpleNamespace(suite=types.SimpleNamespace(value=len(asked) / 10)))

    monkeypatch.setattr(darumeru.evaluation, "prepare", lambda settings: settings)
    monkeypatch.setattr(darumeru.evaluation, "execute", execute)

    def search(force: bool = False, **changes: Any) -> list[float | None]:
        settings = small(max_steps=5, suite="darumeru-train", **changes)
        trials = sweep(
            base, [corpus], tmp_path / "s", [1e-2], held_out=[str(corpus)], settings=settings, force=force
        )  # fmt: skip
        return [trial.score for trial in trials]

    assert search() == search() == [0.1]
    assert search(limit=3) == [0.2]
    assert search(limit=3, data="hub") == [0.3]
    assert [(plan.limit, plan.data) for plan in asked] == [(None, "mini"), (3, "mini"), (3, "hub")]
    with pytest.raises(UserError, match="add --force to begin anew"):
        search(weight_decay=0.5)
    assert search(force=True, weight_decay=0.5) == [0.4], "another model"


def test_the_pick() -> None:
    bits = [Trial(1e-5, 3.0, 1.2), Trial(1e-4, 2.0, 1.1), Trial(1e-3, float("nan"), float("inf"))]
    assert pick(bits) is bits[1]
    scored = [Trial(1e-5, 3.0, 1.2, 0.6), Trial(1e-4, 2.0, 1.1, 0.5), bits[2]]
    assert pick(scored) is scored[0]
    with pytest.raises(UserError, match="lower"):
        pick(bits[2:])


def test_the_command(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*extra: str) -> int:
        arguments = [
            "lep", "pretrain", "--model", base, "--corpus", corpus, "--output", tmp_path / "out", "--held-out",
            f"ru={corpus}", "--block-size", "48", "--total-batch-size", "4", "--per-device-train-batch-size", "2",
            "--max-steps", "5", "--warmup-steps", "1", "--device", "cpu", *extra,
        ]  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return int(stopped.value.code or 0)

    assert run("--sweep-lr", "1e-2,1e-6", "--sweep-fraction", "0.4") == 0
    said = capsys.readouterr().out
    assert "picked" in said
    assert "bits_per_byte: before" in said
    assert json.loads((tmp_path / "out" / "lep.json").read_text())["settings"]["learning_rate"] == 1e-2
    assert run("--learning-rate", "0.5") == 2
    assert "with other settings (learning_rate 0.01 there, 0.5 now)" in capsys.readouterr().err
    assert run("--sweep-lr", "fast") == 2
