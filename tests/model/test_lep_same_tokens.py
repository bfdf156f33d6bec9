"""Which rows belong to which tokens, held against tokenizer files that the test reads by itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lep.initialisation.job import initialise
from lep.propagation.job import propagate
from support.lep_models import ENGLISH, RUSSIAN, add_special, save_byte_level, save_sentencepiece


def names_of(folder: Path) -> dict[str, int]:
    """Token as written → id, straight from the file."""
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = spec["model"]["vocab"]
    named = dict(vocabulary) if isinstance(vocabulary, dict) else {piece: i for i, (piece, _) in enumerate(vocabulary)}
    return named | {entry["content"]: entry["id"] for entry in spec["added_tokens"]}


def matrices(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()


@pytest.mark.parametrize("save", [save_byte_level, save_sentencepiece])
def test_a_models_own_tokenizer_changes_no_row(
    save: Callable[..., Path], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    # Digits and Latin letters are characters and byte-fallback tokens at once.
    model = save(make_model("model", "llama", rows=448), [*ENGLISH, "0123456789 !? xyz"], 400)
    initialise(model, model, tmp_path / "out")
    size = len(names_of(model))
    for before, after in zip(matrices(model), matrices(tmp_path / "out"), strict=True):
        assert torch.equal(after[:size], before[:size])


def test_mistrals_tokens_keep_their_rows_in_its_own_and_in_a_longer_vocabulary(
    shared: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from lep.vocab.commands import extend_vocabulary

    tokenizer = shared / "tokenizers" / "mistral-7b-v0.1"
    model = make_model("model", "llama", rows=32_000)
    for file in tokenizer.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    corpus = shared / "corpus" / "ru" / "ud_sentences.jsonl"
    extend_vocabulary(tokenizer, [corpus], tmp_path / "longer", add=500)
    names = names_of(tokenizer)
    assert {"1", "<0x31>", "<s>"} <= names.keys()
    for new in (tokenizer, tmp_path / "longer"):
        initialise(model, new, tmp_path / "out", force=True)
        own = names_of(new)
        rows = torch.tensor([[index, own[token]] for token, index in names.items()])
        for before, after in zip(matrices(model), matrices(tmp_path / "out"), strict=True):
            assert torch.equal(after[rows[:, 1]], before[rows[:, 0]])


def add_tokens(folder: Path, texts: tuple[str, ...]) -> None:
    """Append added tokens that are not flagged as special, as Qwen3 has `<think>`."""
    from tokenizers import AddedToken, Tokenizer

    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_tokens([AddedToken(text, special=False, normalized=False) for text in texts])
    made.save(str(folder / "tokenizer.json"))


def test_control_tokens_without_the_flag_stay_the_instruct_models_own(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    controls = ("<think>", "</think>", "<tool_call>", "\n\n\n")
    folders = {}
    for seed, name in enumerate(("base", "adapted", "instruct")):
        rows = 512 if name == "adapted" else 448
        folder = folders[name] = make_model(name, "llama", rows=rows, seed=seed)
        save_byte_level(folder, ENGLISH + RUSSIAN if name == "adapted" else ENGLISH, 500 if name == "adapted" else 400)
        add_tokens(folder, controls)
    propagate(*folders.values(), tmp_path / "out", method="swap")
    instruct, result = names_of(folders["instruct"]), names_of(tmp_path / "out")
    adapted = names_of(folders["adapted"])
    for own, trained, made in zip(
        matrices(folders["instruct"]), matrices(folders["adapted"]), matrices(tmp_path / "out"), strict=True
    ):
        for token in controls[:3]:
            assert torch.equal(made[result[token]], own[instruct[token]]), token
        # A run of line ends is text like any other: its trained row is carried over.
        assert torch.equal(made[result["\n\n\n"]], trained[adapted["\n\n\n"]])


def save_unigram(folder: Path, texts: list[str]) -> Path:
    """A Unigram tokenizer folder that cuts at spaces only, as T5's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    alphabet = sorted({*"".join(texts), *"<|_>"})
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<unk>"],
        unk_token="<unk>",  # noqa: S106 - no password
        initial_alphabet=alphabet,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


def test_a_control_token_in_plain_text_is_cut_up_in_a_unigram_vocabulary(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = save_byte_level(make_model("base", "llama", rows=448), ENGLISH, 400)
    instruct = save_byte_level(make_model("instruct", "llama", rows=448, seed=2), ENGLISH, 400)
    add_special(instruct, ("<|im_start|>",))
    initialise(base, save_unigram(tmp_path / "unigram", [*RUSSIAN, *ENGLISH] * 5), tmp_path / "adapted")
    propagate(base, tmp_path / "adapted", instruct, tmp_path / "out", method="swap")
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    control = names_of(tmp_path / "out")["<|im_start|>"]
    assert control in loaded("<|im_start|>", add_special_tokens=False)["input_ids"]
    plain = loaded("the <|im_start|> in a text", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert control not in plain
    assert loaded.decode(plain) == "the <|im_start|> in a text"


def test_other_formats_of_the_old_tokenizer_and_weights_are_left_behind(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    model = save_byte_level(make_model("model", rows=448), ENGLISH, 400)
    tokenizer = save_byte_level(tmp_path / "tokenizer", RUSSIAN + ENGLISH, 500)
    stale = ("params.json", "tokenizer.model.v3", "tekken.json", "tokenizer.model")
    for name in (*stale, "README.md"):
        (model / name).write_text("{}")
    initialise(model, tokenizer, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & set(stale)
    assert "README.md" in names
