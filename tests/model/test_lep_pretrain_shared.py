"""A map that all new rows share: what it moves, by which gradient, and a training that resumes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from darumeru.errors import UserError
from lep.initialisation.job import initialise
from lep.model.checkpoint import open_checkpoint
from lep.model.shards import read_rows
from lep.pretraining.job import pretrain
from lep.pretraining.shared_map import SharedMap, features_of, pieces_of
from lep.vocab.commands import extend_vocabulary
from support.lep_models import ENGLISH, save_byte_level
from support.pretraining import documents, interrupt, losses, small

LETTERS = ["а б в г д е ж з и к л м н о п р с т у ф х ц ч ш щ ы ь э ю я"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


def adapted(make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str) -> Path:
    """A model with Russian tokens on top of a vocabulary of English words and Russian letters; its original beside it."""
    original = save_byte_level(make_model("original", kind, rows=384, initializer_range=0.3), ENGLISH + LETTERS, 384)
    extend_vocabulary(original, [corpus], tmp_path / "vocab", add=40)
    initialise(original, tmp_path / "vocab", tmp_path / "base")
    return tmp_path / "base"


def matrix(folder: Path, head: bool = False) -> np.ndarray:
    found = open_checkpoint(folder).embeddings
    stored = found.head if head and found.head is not None else found.input
    return read_rows(stored, 0, stored.shape[0]).double().numpy()


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_tokens_are_described_by_their_pieces(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str
) -> None:
    from transformers import AutoTokenizer

    base = adapted(make_model, corpus, tmp_path, kind)
    original = tmp_path / "original"
    old, new = AutoTokenizer.from_pretrained(original), AutoTokenizer.from_pretrained(base)
    ids = [i for i in range(len(old), len(new)) if "\ufffd" not in new.decode([i])]
    assert len(ids) > 20
    for head in (False, True):
        rows, known = matrix(original, head), open_checkpoint(original).embeddings
        stored = (known.head if head else None) or known.input
        got = features_of(pieces_of(original, base, ids), stored).numpy()
        assert got.shape == (len(ids), 3 * rows.shape[1] + 9)
        for index, found in zip(ids, got, strict=True):
            pieces = old(new.decode([index]), add_special_tokens=False)["input_ids"]
            wanted = np.concatenate([rows[pieces[0]], rows[pieces[-1]], rows[pieces].mean(axis=0)])
            np.testing.assert_allclose(found[: len(wanted)], wanted, atol=1e-6)
            assert found[len(wanted) : -1].nonzero()[0].tolist() == [min(len(pieces), 8) - 1]
        assert (np.diff(got[:, -1]) < 0).all(), "the more frequent, the larger"


def test_the_map_gets_the_gradient_of_a_model_that_computes_it() -> None:
    torch.manual_seed(0)
    features, rows = torch.randn(5, 7), torch.nn.Parameter(torch.randn(9, 4))
    index, target = torch.tensor([8, 1, 3, 4, 6]), torch.randn(9, 4)
    shared = SharedMap.of(rows, index, features)
    change = torch.zeros(7, 4, requires_grad=True)
    ((rows.detach().index_add(0, index, features @ change) - target) ** 3).sum().backward()
    ((rows - target) ** 3).sum().backward()
    shared.before_step()
    torch.testing.assert_close(shared.change.grad, change.grad)
    before, step = rows.detach().clone(), torch.randn(7, 4)
    with torch.no_grad():
        shared.change.copy_(step)
    shared.after_step()
    shared.after_step()  # a hook may be called twice
    torch.testing.assert_close(rows.detach(), before.index_add(0, index, features @ step))


@pytest.mark.parametrize(("kind", "what"), [("llama-tied", "new-rows+lora"), ("llama", "embeddings")])
def test_rows_of_tokens_that_are_never_read_move_too(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str, what: str
) -> None:
    base = adapted(make_model, corpus, tmp_path, kind)
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"text": documents()[0]}, ensure_ascii=False))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    old = len(AutoTokenizer.from_pretrained(tmp_path / "original"))
    read = set(tokenizer(documents()[0])["input_ids"])
    unread = [i for i in range(old, len(tokenizer)) if i not in read]
    assert unread
    moved = {}
    for rate in (0.0, 1e-2):
        out = tmp_path / f"out-{rate}"
        settings = small(train=what, shared_learning_rate=rate, new_from=None, max_steps=4, lora_rank=2)
        pretrain(base, [one], out, settings=settings)
        moved[rate] = np.abs(matrix(out) - matrix(base))
        assert (moved[rate][:old] == 0).all() or what == "embeddings"
    # By itself an input's row that is never read stays; a head's moves a little, being what the softmax turns down.
    assert moved[1e-2][unread].mean() > 20 * moved[0.0][unread].mean() or kind == "llama-tied"
    assert (moved[1e-2][unread] != moved[0.0][unread]).any(axis=1).all()


def test_an_interrupted_training_ends_like_one_that_was_not(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = adapted(make_model, corpus, tmp_path, "llama-tied")
    settings = small(train="new-rows+lora", shared_learning_rate=1e-3, new_from=None, lora_rank=2)
    pretrain(base, [corpus], tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
        interrupt(patch, 5)
        pretrain(base, [corpus], tmp_path / "out", settings=settings)
    pretrain(base, [corpus], tmp_path / "out", settings=settings)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")
    np.testing.assert_array_equal(matrix(tmp_path / "out"), matrix(tmp_path / "whole"))


def test_what_cannot_be_shared_is_said(make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    base = adapted(make_model, corpus, tmp_path, "llama")
    with pytest.raises(UserError, match="--train lora trains none"):
        pretrain(
            base, [corpus], tmp_path / "out", settings=small(train="lora", shared_learning_rate=1e-4, new_from=None)
        )
    plain = save_byte_level(make_model("plain", "llama", rows=384), ENGLISH, 384)
    with pytest.raises(UserError, match="--new-from"):
        pretrain(plain, [corpus], tmp_path / "o", settings=small(shared_learning_rate=1e-4, new_from=None))
