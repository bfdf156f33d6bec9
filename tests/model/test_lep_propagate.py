"""The exact checks of Learned Embedding Propagation, on small models of random weights, tied and untied."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lep
from darumeru.errors import UserError
from lep.model.checkpoint import open_checkpoint
from lep.model.folders import folder_fingerprint
from lep.model.manifest import read_manifest
from lep.propagation import result
from lep.propagation.job import propagate
from lep.tokenizer.vocabulary import Vocabulary
from support.lep_models import ENGLISH, RUSSIAN, add_special, save_byte_level

ROWS = 448  # 400 tokens and padding
DIM = 16
Change = Callable[[str, torch.Tensor], torch.Tensor]


class Family:
    """A base model, a base model in another vocabulary, and an instruct model, all saved folders."""

    def __init__(self, place: Path, make_model: Callable[..., Path], kind: str) -> None:
        self.place = place
        self.make_model = make_model
        self.kind = kind
        self.base = make_model("base", kind, rows=ROWS, dtype="float32")
        base = load_file(self.base / "model.safetensors")
        save_byte_level(self.base, ENGLISH, 400)
        self.adapted = make_model("adapted", kind, rows=512, seed=1)
        self.change_layers(self.adapted, lambda name, value: base[name])
        save_byte_level(self.adapted, ENGLISH + RUSSIAN, 500)

    def change_layers(self, folder: Path, change: Change) -> None:
        """Change a folder's tensors that have no row for each token: name, value → value."""
        tensors = load_file(folder / "model.safetensors")
        layers = {name: change(name, value) for name, value in tensors.items() if not re.search("embed|head", name)}
        save_file({**tensors, **layers}, folder / "model.safetensors", {"format": "pt"})

    def instruct(self, change: Change, *, special: tuple[str, ...] = ()) -> Path:
        """The base model with every embedding matrix changed, and further special tokens at the end."""
        import transformers

        folder = self.place / "instruct"
        model = transformers.AutoModelForCausalLM.from_pretrained(self.base)
        with torch.no_grad():
            source = model.get_input_embeddings().weight
            head = model.get_output_embeddings().weight
            source.copy_(change("embedding", source))
            if head is not source:
                head.copy_(change("head", head))
            for parameter in model.model.layers.parameters():
                parameter.add_(0.25)
        model.save_pretrained(folder)
        for path in self.base.iterdir():
            if "token" in path.name or "template" in path.name:
                shutil.copy(path, folder / path.name)
        if special:
            add_special(folder, special)
        return folder


@pytest.fixture(params=["llama", "llama-tied"])
def family(request: pytest.FixtureRequest, tmp_path: Path, make_model: Callable[..., Path]) -> Family:
    return Family(tmp_path, make_model, request.param)


def matrices(folder: Path) -> dict[str, Any]:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {
        "embedding": model.get_input_embeddings().weight.detach().double(),
        "head": model.get_output_embeddings().weight.detach().double(),
    }


def planted(which: str) -> torch.Tensor:
    seed = 11 if which == "embedding" else 12
    return torch.eye(DIM) + 0.3 * torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(seed))


def ordinary(folder: Path) -> Any:
    vocabulary = Vocabulary.load(folder)
    return [index for index in range(vocabulary.size) if not vocabulary.is_special(index)]


@pytest.mark.parametrize("method", ["overlap", "conversion", "residual"])
def test_planted_maps_are_found(family: Family, method: Any, tmp_path: Path) -> None:
    instruct = family.instruct(lambda which, rows: rows @ planted(which if family.kind == "llama" else "embedding"))
    manifest = propagate(family.base, family.adapted, instruct, tmp_path / "out", method=method)
    result, trained = matrices(tmp_path / "out"), matrices(family.adapted)
    rows = ordinary(family.adapted)
    for which in result:
        wanted = trained[which] @ planted(which if family.kind == "llama" else "embedding").double()
        assert (result[which][rows] - wanted[rows]).abs().max() < 1e-6  # the folder stores float32
        found = manifest["measures"].get(which)
        if found is not None:
            assert found["rank"] == DIM
            assert found["residual"] < 1e-6
            assert found["condition"] < 100
    assert ("head" in manifest["measures"]) == (family.kind == "llama")


@pytest.mark.parametrize("method", ["swap", "overlap", "conversion", "delta", "residual"])
def test_an_unchanged_instruct_model_gives_the_trained_rows(family: Family, method: Any, tmp_path: Path) -> None:
    instruct = family.instruct(lambda _, rows: rows)
    propagate(family.base, family.adapted, instruct, tmp_path / "out", method=method)
    result, trained = matrices(tmp_path / "out"), matrices(family.adapted)
    size = Vocabulary.load(family.adapted).size
    for which in result:
        assert (result[which][:size] - trained[which][:size]).abs().max() < 1e-7


@pytest.mark.parametrize("method", ["overlap", "conversion", "delta", "residual"])
def test_an_untrained_base_gives_the_instruct_model_itself(family: Family, method: Any, tmp_path: Path) -> None:
    instruct = family.instruct(lambda which, rows: rows @ planted("embedding"))
    propagate(family.base, family.base, instruct, tmp_path / "out", method=method)
    result, own = matrices(tmp_path / "out"), matrices(instruct)
    for which in result:  # padding rows and special tokens included
        assert (result[which] - own[which]).abs().max() < 1e-6


def noise(rows: torch.Tensor, seed: int) -> torch.Tensor:
    return rows + 0.5 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))


def mean_of_pieces(old: Path, new: Path, rows: Any) -> Any:
    """For each token of `new` the mean of the old rows of its pieces, by the old merges applied to its very bytes."""
    from tokenizers import Tokenizer, models

    spec, vocabulary = (json.loads((folder / "tokenizer.json").read_text())["model"] for folder in (old, new))
    merges = Tokenizer(models.BPE(spec["vocab"], [tuple(pair) for pair in spec["merges"]]))
    names = sorted(vocabulary["vocab"], key=vocabulary["vocab"].get)
    pieces = [[spec["vocab"][name]] if name in spec["vocab"] else merges.encode(name).ids for name in names]
    return np.stack([rows[ids].mean(axis=0) for ids in pieces])


@pytest.mark.parametrize("method", ["delta", "residual"])
def test_what_no_linear_map_can_express_is_kept(family: Family, method: str, tmp_path: Path) -> None:
    """Each row of the instruct model went its own way: E_ru D + T (E_inst − E_base D), written out."""
    instruct = family.instruct(lambda which, rows: noise(rows @ planted(which), len(which)))
    manifest = propagate(family.base, family.adapted, instruct, tmp_path / "out", method=method)
    result, trained, base, own = map(matrices, (tmp_path / "out", family.adapted, family.base, instruct))
    rows = ordinary(family.adapted)
    for which in result:
        before, after = base[which].numpy(), own[which].numpy()
        if method == "delta":
            change = np.eye(DIM)
        else:
            a, b = (mean_of_pieces(family.base, family.adapted, values)[rows] for values in (before, after))
            change = np.linalg.lstsq(a, b, rcond=None)[0]
        added = mean_of_pieces(family.base, family.adapted, after - before @ change)
        wanted = trained[which].numpy()[: len(added)] @ change + added
        assert np.abs(result[which].numpy()[rows] - wanted[rows]).max() < 1e-6
        assert np.abs(added[rows]).max() > 0.1
    assert manifest["measures"]["embedding"]["rows_moved"] >= len(rows)


@pytest.mark.parametrize("method", ["delta", "residual"])
def test_an_untrained_new_token_gets_the_mean_of_the_instruct_models_rows(
    family: Family, method: str, tmp_path: Path
) -> None:
    instruct = family.instruct(lambda which, rows: noise(rows, len(which)))
    for model, name in ((family.base, "adapted-0"), (instruct, "wanted")):
        lep.initialise(model, family.adapted, tmp_path / name)
    propagate(family.base, tmp_path / "adapted-0", instruct, tmp_path / "out", method=method)
    result, wanted = matrices(tmp_path / "out"), matrices(tmp_path / "wanted")
    size = Vocabulary.load(family.adapted).size
    for which in result:
        assert (result[which][:size] - wanted[which][:size]).abs().max() < 1e-5


def test_everything_else_is_the_instruct_models(family: Family, tmp_path: Path) -> None:
    import transformers

    instruct = family.instruct(lambda _, rows: rows * 1.5, special=("<|user|>", "<|assistant|>"))
    (instruct / "chat_template.jinja").write_text("the instruct template {{ messages[0]['content'] }}")
    generation = json.loads((instruct / "generation_config.json").read_text())
    special = Vocabulary.load(instruct).by_added_text
    (instruct / "generation_config.json").write_text(
        json.dumps({**generation, "eos_token_id": [special["<|user|>"], special["<|end|>"]], "temperature": 0.3})
    )
    before = [folder_fingerprint(folder) for folder in (family.base, family.adapted, instruct)]
    propagate(family.base, family.adapted, instruct, tmp_path / "out", method="overlap")
    assert [folder_fingerprint(folder) for folder in (family.base, family.adapted, instruct)] == before

    out = tmp_path / "out"
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False).startswith("the instruct")
    new = Vocabulary.load(out)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [new.by_added_text["<|user|>"], new.by_added_text["<|end|>"]]
    assert generation["temperature"] == 0.3
    result, own = matrices(out), matrices(instruct)
    for text, index in special.items():
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == [new.by_added_text[text]]
        for which in result:
            assert torch.equal(result[which][new.by_added_text[text]], own[which][index]), text
    # Russian text is read as the adapted model reads it.
    adapted = transformers.AutoTokenizer.from_pretrained(family.adapted)
    for text in RUSSIAN + ENGLISH:
        assert tokenizer(text)["input_ids"] == adapted(text)["input_ids"]
    layers = transformers.AutoModelForCausalLM.from_pretrained(out).model.layers.state_dict()
    for name, value in transformers.AutoModelForCausalLM.from_pretrained(instruct).model.layers.state_dict().items():
        assert torch.equal(layers[name], value)
    assert open_checkpoint(out).embeddings.rows == open_checkpoint(family.adapted).embeddings.rows
    manifest = read_manifest(out)
    assert manifest is not None
    assert set(manifest["inputs"]) == {"base", "adapted", "instruct"}


def test_sums_over_shared_pieces_are_those_of_all_rows(family: Family) -> None:
    from lep.propagation.linalg import accumulate
    from lep.propagation.matrices import conversion_blocks, conversion_sums
    from lep.tokenizer.transfer import build_transfer, split_coupled

    base, adapted = Vocabulary.load(family.base), Vocabulary.load(family.adapted)
    matrix = build_transfer(base, adapted, old_rows=ROWS, new_rows=512).matrix
    matrix = matrix[np.flatnonzero(np.diff(matrix.indptr))]
    copies, mixed, coupled = split_coupled(matrix)
    assert copies.shape[0] + mixed.shape[0] == matrix.shape[0]
    assert 0 < len(coupled) < mixed.shape[0], "the case that is worth it"
    found = open_checkpoint(family.base).embeddings.input
    other = open_checkpoint(family.adapted).embeddings.input
    whole = accumulate(conversion_blocks(found, other, matrix, np.arange(ROWS)), found.shape[1])
    short = conversion_sums(found, other, matrix, np.arange(ROWS))
    assert short.rows == whole.rows == matrix.shape[0]
    assert short.target == pytest.approx(whole.target, rel=1e-13)
    for a, b in ((whole.gram, short.gram), (whole.cross, short.cross)):
        assert (a - b).abs().max() < 1e-13 * a.abs().max()


def test_ridge_lies_between_conversion_and_swap(family: Family, tmp_path: Path) -> None:
    instruct = family.instruct(lambda which, rows: rows @ planted("embedding"))
    distances = []
    for method, strength in (("conversion", 0.0), ("ridge", 0.1), ("ridge", 1.0), ("ridge", 10.0)):
        manifest = propagate(
            family.base, family.adapted, instruct, tmp_path / "out", method=method, strength=strength, force=True
        )
        distances.append(manifest["measures"]["embedding"]["distance_from_identity"])
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 2


def test_auto_keeps_the_candidate_with_the_fewest_bits(family: Family, tmp_path: Path) -> None:
    instruct = family.instruct(lambda which, rows: rows @ planted("embedding"))
    manifest = propagate(family.base, family.adapted, instruct, tmp_path / "out", method="auto", texts=RUSSIAN)
    scores = manifest["measures"]["bits_per_byte"]
    names = {"swap", "overlap", "conversion", "delta", "residual", "ridge 0.01", "ridge 0.1", "ridge 1"}
    assert set(scores) == names
    assert scores[manifest["measures"]["chosen"]] == min(scores.values())
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == []
    from lep.measure.bits import bits_per_byte

    assert bits_per_byte(tmp_path / "out", RUSSIAN) == pytest.approx(min(scores.values()), rel=1e-6)


def test_auto_writes_one_model_the_one_of_its_method(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = result.write_checkpoint

    def counted(source: Any, place: Path, **others: Any) -> None:
        written.append(place)
        write(source, place, **others)

    monkeypatch.setattr(result, "write_checkpoint", counted)
    family.change_layers(family.adapted, lambda name, value: value + 0.1 if "layers.1" in name else value)
    instruct = family.instruct(lambda which, rows: rows @ planted("embedding"))
    measures = propagate(family.base, family.adapted, instruct, tmp_path / "auto", method="auto", texts=RUSSIAN)[
        "measures"
    ]
    assert len(written) == 1
    name, _, strength = measures["chosen"].partition(" ")
    settings = {"strength": float(strength)} if strength else {}
    propagate(
        family.base, family.adapted, instruct, tmp_path / "named", method=name, alpha=measures["alpha"], **settings
    )
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "auto" / file).read_bytes() == (tmp_path / "named" / file).read_bytes()


def test_another_base_is_warned_about(family: Family, make_model: Callable[..., Path], tmp_path: Path) -> None:
    other = make_model("other", family.kind, rows=ROWS, seed=99)
    save_byte_level(other, ENGLISH, 400)
    said: list[str] = []
    propagate(family.base, family.adapted, other, tmp_path / "out", warn=said.append)
    assert said
    assert "mean correlation of" in said[0]


def test_a_head_with_a_bias_is_carried_over(make_model: Callable[..., Path], tmp_path: Path) -> None:
    import transformers

    folders = []
    for number, (rows, texts, size) in enumerate([(448, ENGLISH, 400), (512, ENGLISH + RUSSIAN, 500)]):
        folder = make_model(f"phi{number}", "phi", rows=rows)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            model.lm_head.bias.copy_(torch.randn(rows, generator=torch.Generator().manual_seed(number)))
        model.save_pretrained(folder)
        folders.append(save_byte_level(folder, texts, size))
    base, adapted = folders
    propagate(base, adapted, base, tmp_path / "out")
    result = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").lm_head.bias
    trained = transformers.AutoModelForCausalLM.from_pretrained(adapted).lm_head.bias
    assert torch.equal(result[:500], trained[:500])


def test_models_that_do_not_belong_together(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    tied = save_byte_level(make_model("tied", "llama-tied", rows=448), ENGLISH, 400)
    mistral = save_byte_level(make_model("mistral", "mistral", rows=448), ENGLISH, 400)
    wide = save_byte_level(make_model("wide", "llama", rows=448, hidden_size=32), ENGLISH, 400)
    small = save_byte_level(make_model("small", "llama", rows=300), ENGLISH, 400)
    nan = save_byte_level(make_model("nan", "llama", rows=448), ENGLISH, 400)
    found = open_checkpoint(nan).embeddings.input
    data = bytearray(found.file.read_bytes())
    row = found.offset + 300 * found.nbytes // found.shape[0]
    data[row : row + 4] = np.float32("nan").tobytes()
    found.file.write_bytes(bytes(data))
    for instruct, message in (
        (tied, "separate in the base and tied in the instruct"),
        (mistral, "LlamaForCausalLM and the instruct model a MistralForCausalLM"),
        (wide, "16 columns and the instruct model's 32"),
        (small, r"300 rows for 3\d\d tokens"),
        (nan, "NaN or infinite values in row 300"),
        (tmp_path / "none", "There is no folder"),
    ):
        with pytest.raises(UserError, match=message):
            propagate(base, base, instruct, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_vocabularies_without_overlap_are_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    folder = make_model("other", "llama", rows=448)
    from tokenizers import Tokenizer, models

    save_byte_level(folder, ENGLISH, 400)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"] = json.loads(Tokenizer(models.BPE({chr(0x4E00 + n): n for n in range(400)}, [])).to_str())["model"]
    spec["added_tokens"] = []
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="do not belong together"):
        propagate(base, base, folder, tmp_path / "out")


def test_bad_methods_and_missing_texts(make_model: Callable[..., Path], tmp_path: Path) -> None:
    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    with pytest.raises(UserError, match="Available: auto, conversion, delta, overlap, residual, ridge, swap"):
        propagate(base, base, base, tmp_path / "out", method="magic")
    with pytest.raises(UserError, match="give one with --text"):
        propagate(base, base, base, tmp_path / "out", method="auto")
    with pytest.raises(UserError, match="also an input"):
        propagate(base, base, base, base, force=True)


def layers_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model.safetensors")
    return {name: value.double() for name, value in tensors.items() if not re.search("embed|head", name)}


def test_trained_layers_are_carried_over(family: Family, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    family.change_layers(
        family.adapted,
        lambda name, value: (
            value + 0.1 * torch.randn(value.shape, generator=generator) if "layers.1" in name else value
        ),
    )
    instruct = family.instruct(lambda _, rows: rows)
    base, adapted, own = layers_of(family.base), layers_of(family.adapted), layers_of(instruct)
    trained = {name for name in base if "layers.1" in name}
    for alpha in (None, 0.5, 0.0):
        manifest = propagate(family.base, family.adapted, instruct, tmp_path / "out", alpha=alpha, force=True)
        share = 1.0 if alpha is None else alpha
        result = layers_of(tmp_path / "out")
        for name in base:
            wanted = own[name] + share * (adapted[name] - base[name])
            assert (result[name] - wanted).abs().max() < 1e-6
        assert manifest["measures"]["trained_tensors"] == len(trained)
        assert manifest["measures"]["alpha"] == share


def test_trained_layers_are_not_dropped_without_a_word(family: Family, tmp_path: Path) -> None:
    family.change_layers(family.adapted, lambda name, value: value + 0.1 if "layers.1" in name else value)
    instruct = family.instruct(lambda _, rows: rows)
    said: list[str] = []
    propagate(family.base, family.adapted, instruct, tmp_path / "out", backbone="instruct", warn=said.append)
    assert "model.layers.1." in said[0]
    assert "--backbone instruct" in said[0]
    own, result = layers_of(instruct), layers_of(tmp_path / "out")
    assert all(torch.equal(result[name], own[name]) for name in own)


def test_auto_chooses_the_share_of_the_layers_change(family: Family, tmp_path: Path) -> None:
    """Among the shares it says what it measured of, the one with the fewest bits per byte."""
    generator = torch.Generator().manual_seed(5)
    family.change_layers(family.adapted, lambda _, value: value + 3 * torch.randn(value.shape, generator=generator))
    instruct = family.instruct(lambda _, rows: rows)
    manifest = propagate(family.base, family.adapted, instruct, tmp_path / "out", method="auto", texts=RUSSIAN)
    scores = manifest["measures"]["bits_per_byte"]
    title = manifest["measures"]["chosen"]
    shares = {1.0: scores[title]} | {s: scores[f"{title}, alpha {s:g}"] for s in (0.25, 0.5, 0.75)}
    assert manifest["measures"]["alpha"] == min(shares, key=lambda share: shares[share])


@pytest.mark.parametrize("alpha", [-0.5, 3.0, float("nan")])
def test_a_share_without_meaning_is_refused(family: Family, tmp_path: Path, alpha: float) -> None:
    with pytest.raises(UserError, match="--alpha must be from 0 to 2"):
        propagate(family.base, family.adapted, family.base, tmp_path / "out", alpha=alpha)


def test_another_models_layers_are_refused(family: Family, tmp_path: Path) -> None:
    tensors = load_file(family.adapted / "model.safetensors")
    tensors.pop("model.norm.weight")
    save_file(tensors, family.adapted / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"model\.norm\.weight of the base is missing"):
        propagate(family.base, family.adapted, family.base, tmp_path / "out")
