"""New rows from old ones: copied bit for bit, averaged by bytes, drawn with the right moments."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darumeru.errors import UserError
from lep.initialisation.job import initialise
from lep.initialisation.strategies.focus import similarity_weights
from lep.initialisation.strategies.omp import pursuit_weights
from lep.model.checkpoint import open_checkpoint
from lep.tokenizer.transfer import build_transfer
from lep.tokenizer.vocabulary import Vocabulary
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level, save_sentencepiece

WHICH = ("input", "head")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join((RUSSIAN + ENGLISH) * 30))
    return path


def matrix(folder: Path, which: str = "input") -> Any:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    source = model.get_input_embeddings() if which == "input" else model.get_output_embeddings()
    return source.weight.detach()


def by_meaning(folder: Path) -> dict[bytes | str, int]:
    """Bytes of a token, or the name of a byte-fallback token → its id, read from the file without our own code."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {entry["content"] for entry in spec["added_tokens"]}
    characters = {character: byte for byte, character in bytes_to_unicode().items()}
    found: dict[bytes | str, int] = {}
    for token, index in spec["model"]["vocab"].items():
        if token in added:
            continue
        if not spec["model"]["byte_fallback"]:
            found[bytes(characters[character] for character in token)] = index
        elif token.startswith("<0x"):
            found[token] = index
            found.setdefault(bytes([int(token[3:5], 16)]), index)
        else:
            found[token.replace("▁", " ").encode()] = index
    return found


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "phi", "gemma3"])
@pytest.mark.parametrize("families", ["byte to byte", "byte to sentencepiece", "sentencepiece to byte"])
def test_mean_rows_are_the_mean_of_the_old_tokens(
    kind: str, families: str, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    makers = {"byte": save_byte_level, "sentencepiece": save_sentencepiece}
    first, second = families.split(" to ")
    model = makers[first](make_model("old", kind, rows=448), ENGLISH, 400)
    tokenizer = makers[second](tmp_path / "tokenizer", RUSSIAN + ENGLISH, 500)
    manifest = initialise(model, tokenizer, tmp_path / "out")
    old, new = Vocabulary.load(model), Vocabulary.load(tokenizer)
    before, after = matrix(model), matrix(tmp_path / "out")
    heads = matrix(model, "head"), matrix(tmp_path / "out", "head")
    assert len(after) % 64 == 0
    seen = set()
    meant = by_meaning(model)
    for index in range(new.size):
        if index in new.added:
            continue
        data = new.bytes_of(index)
        names = [f"<0x{data[0]:02X}>", data] if len(data) == 1 and new.strings[index].startswith("<0x") else [data]
        same = next((meant[name] for name in names if name in meant), None)
        pieces = [same] if same is not None else old.pieces([data])[0]
        assert b"".join(old.bytes_of(piece) for piece in pieces) == data
        seen.add(min(len(pieces), 3))
        for left, right in ((before, after), heads):
            if len(pieces) == 1:
                assert torch.equal(right[index], left[pieces[0]])
            else:
                assert (right[index] - left[pieces].double().mean(dim=0)).abs().max() < 1e-6
    assert seen == {1, 2, 3}
    # A padding row's logit is the mean of all logits, so it is never the largest.
    hidden = torch.randn(50, before.shape[1], generator=torch.Generator().manual_seed(0))
    logits = hidden @ heads[1].T
    assert int(logits.argmax(dim=1).max()) < new.size
    measures = manifest["measures"]
    assert measures["copied"] + measures["averaged"] + measures["without_source"] == len(new.strings)
    assert measures["rows"] == {"old": 448, "new": len(after)}


def test_incomplete_characters_are_matched_by_bytes(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = save_byte_level(make_model("old", rows=448), ENGLISH, 400)
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN, 500)
    old, new = Vocabulary.load(model), Vocabulary.load(tokenizer)
    transfer = build_transfer(old, new, old_rows=448, new_rows=512)
    for index in range(new.size):
        if index not in new.added and len(new.bytes_of(index)) == 1:
            assert transfer.copied[index]
            assert transfer.matrix[[index]].indices.tolist() == [old.by_bytes[new.bytes_of(index)]]
    assert np.allclose(transfer.matrix.sum(axis=1)[transfer.tokens], 1)
    assert not transfer.matrix[new.size :].nnz
    # "x" and " x" stay apart.
    assert old.by_bytes[b"the"] != old.by_bytes[b" the"]


def test_weights_fall_along_the_pieces(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = save_byte_level(make_model("old", rows=448), ENGLISH, 400)
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN, 500)
    old, new = Vocabulary.load(model), Vocabulary.load(tokenizer)
    transfer = build_transfer(old, new, old_rows=448, new_rows=512, weights="weighted")
    index = next(i for i in new.strings if new.bytes_of(i) in (" мо".encode(), " пр".encode(), " т".encode()))
    pieces = old.pieces([new.bytes_of(index)])[0]
    assert old.bytes_of(pieces[0]) == b" "
    raw = np.array([0.1, *(1 / (j + 1) for j in range(1, len(pieces)))])
    dense = transfer.matrix[[index]].toarray()[0]
    wanted = np.zeros(448)
    np.add.at(wanted, pieces, raw / raw.sum())
    assert np.allclose(dense, wanted)


@pytest.mark.parametrize("strategy", ["mean", "weighted", "random", "random-row", "focus", "omp"])
def test_every_strategy_copies_shared_rows_and_is_reproducible(
    strategy: Any, make_model: Callable[..., Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lep.initialisation import auxiliary

    monkeypatch.setattr(auxiliary, "corpus_vectors", partial(auxiliary.corpus_vectors, dim=16))
    model = save_byte_level(make_model("old", "llama", rows=448), ENGLISH, 400)
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN + ENGLISH, 500)
    results = []
    for name in ("one", "two"):
        manifest = initialise(model, tokenizer, tmp_path / name, strategy=strategy, corpus=[corpus], atoms=4)
        assert manifest["settings"]["strategy"] == strategy
        results.append((matrix(tmp_path / name), matrix(tmp_path / name, "head")))
    assert torch.equal(results[0][0], results[1][0])
    old, new = Vocabulary.load(model), Vocabulary.load(tokenizer)
    before = matrix(model)
    changed = 0
    for index in new.strings:
        same = old.by_bytes.get(new.bytes_of(index)) if index not in new.added else None
        if same is not None:
            assert torch.equal(results[0][0][index], before[same])
        else:
            changed += 1
            if strategy == "random-row":
                assert (results[0][0][index] == before).all(dim=1).any()
    assert changed > 50
    assert bool(torch.isfinite(results[0][0]).all())
    if strategy in ("focus", "omp"):
        assert manifest["measures"]["by_similarity"] > 20


@pytest.mark.parametrize("diagonal", [False, True])
def test_random_rows_have_the_old_moments(diagonal: bool, tmp_path: Path, make_model: Callable[..., Path]) -> None:
    from lep.initialisation.strategies.random import normal

    folder = make_model("m", rows=4000)
    found = open_checkpoint(folder).embeddings.input
    rows = matrix(folder).double()
    drawn = normal(found, 4000, 0, diagonal)(200_000)
    assert (drawn.mean(dim=0) - rows.mean(dim=0)).abs().max() < 3e-4
    wanted = torch.cov(rows.T)
    if diagonal:
        wanted = torch.diag(torch.diag(wanted))
    assert (torch.cov(drawn.T) - wanted).abs().max() < 0.02 * torch.diag(wanted).max()


def test_sparsemax_weights() -> None:
    rng = np.random.default_rng(0)
    known = rng.standard_normal((40, 8)).astype(np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    wanted = known[:5]
    weights = similarity_weights(wanted, known).toarray()
    assert np.allclose(weights.sum(axis=1), 1)
    assert (weights >= 0).all()
    assert (weights.argmax(axis=1) == np.arange(5)).all()
    # The projection onto the simplex: no other point of it is nearer to the scores.
    scores = wanted @ known.T
    for _ in range(200):
        other = rng.dirichlet(np.full(40, 0.2), size=5)
        assert (np.linalg.norm(weights - scores, axis=1) <= np.linalg.norm(other - scores, axis=1)).all()


def test_pursuit_of_rows_of_any_length_fits_them_as_they_are() -> None:
    rng = np.random.default_rng(2)
    known = (rng.standard_normal((200, 64)) * rng.uniform(0.1, 10, (200, 1))).astype(np.float32)
    planted = np.zeros((2, 200))
    planted[[0, 0, 1, 1], [3, 77, 5, 120]] = [0.8, -0.5, 1.0, 0.7]
    weights = pursuit_weights((planted @ known).astype(np.float32), known, atoms=8).toarray()
    assert np.abs(weights - planted).max() < 1e-3


def test_a_donors_head_gives_the_head_its_own_coefficients(make_model: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    model = save_byte_level(make_model("model", "llama", rows=448), ENGLISH, 400)
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN + ENGLISH, 500)
    donor = make_model("donor", "llama", rows=512, seed=3)
    for path in tokenizer.iterdir():
        (donor / path.name).write_bytes(path.read_bytes())
    shared, own = by_meaning(model), by_meaning(tokenizer)
    common = [(own[token], index) for token, index in shared.items() if token in own]
    fresh = [index for token, index in own.items() if token not in shared]
    # Where the model's rows are a linear map of the donor's, exact sums of donor rows are that map of what they sum to.
    maps = {which: torch.randn(16, 16, generator=torch.Generator().manual_seed(n)) for n, which in enumerate(WHICH)}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        for which, layer in zip(WHICH, (loaded.get_input_embeddings(), loaded.get_output_embeddings()), strict=True):
            layer.weight[[b for _, b in common]] = matrix(donor, which)[[a for a, _ in common]] @ maps[which]
    loaded.save_pretrained(model)
    initialise(model, tokenizer, tmp_path / "out", strategy="omp", donor=donor, atoms=16)
    for which in WHICH:
        wanted = matrix(donor, which)[fresh] @ maps[which]
        assert (matrix(tmp_path / "out", which)[fresh] - wanted).abs().max() < 0.01 * wanted.abs().max()


def test_pursuit_finds_a_sparse_sum() -> None:
    rng = np.random.default_rng(1)
    known = rng.standard_normal((200, 64)).astype(np.float32)
    known /= np.linalg.norm(known, axis=1, keepdims=True)
    planted = np.zeros((3, 200))
    planted[[0, 0, 1, 1, 2], [3, 77, 5, 120, 199]] = [0.8, -0.5, 1.0, 0.7, 0.9]
    weights = pursuit_weights((planted @ known).astype(np.float32), known, atoms=8).toarray()
    assert np.abs(weights - planted).max() < 1e-3


def test_ids_in_the_configurations_follow_their_tokens(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = save_byte_level(make_model("old", rows=448), ENGLISH, 400)
    generation = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps({**generation, "eos_token_id": [1], "top_k": 7}))
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN, 500, special=("<|other|>", "<|end|>", "<|begin|>"))
    said: list[str] = []
    initialise(model, tokenizer, tmp_path / "out", warn=said.append)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], config["vocab_size"]) == (2, 1, 448)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["top_k"]) == ([1], 7)
    assert said == []
    lost = save_byte_level(tmp_path / "lost", RUSSIAN, 500, special=("<|other|>", "<|end|>"))
    initialise(model, lost, tmp_path / "out2", warn=said.append)
    assert said == ["The control token '<|begin|>' of the model is not in the new tokenizer; its id was dropped."]


def test_bad_requests(make_model: Callable[..., Path], tmp_path: Path) -> None:
    model = save_byte_level(make_model("old", rows=448), ENGLISH, 400)
    for settings, message in (
        ({"strategy": "magic"}, "Available: focus, mean, omp, random, random-row, weighted"),
        ({"strategy": "focus"}, "give texts with --corpus"),
        ({"pad_to": 0}, "at least 1"),
        ({"tokenizer": tmp_path / "nowhere"}, "There is no folder"),
    ):
        arguments: Any = {"tokenizer": model, **settings}
        with pytest.raises(UserError, match=message):
            initialise(model, arguments.pop("tokenizer"), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
