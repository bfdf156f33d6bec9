"""Whole new vocabularies: BPE and Unigram, with the base's special tokens, read alike by every loader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import DarumeruError, UserError
from lep.initialisation.job import initialise
from lep.tokenizer.vocabulary import Vocabulary
from lep.vocab.train import train_vocabulary
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level, save_sentencepiece

TEXTS = [
    "Ёжик, ёлка и 12,345 рублей!\n\n\tтабуляция  и   пробелы ",
    "emoji 👩‍👩‍👧‍👦 🇷🇺 e\u0301 漢字 \x00 <0x41> <unk>",
    "<|begin|> literal <|end|> tokens",
    *ENGLISH,
    *RUSSIAN,
]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    words = [f"{a}{b}" for a in ("при", "за", "вы", "по", "от") for b in ("ход", "бор", "лёт", "звон", "каз", "мер")]
    path.write_text("\n".join((RUSSIAN + ENGLISH + [" ".join(words)]) * 20))
    return path


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("base", [save_byte_level, save_sentencepiece])
def test_new_vocabularies_round_trip_and_load(kind: Any, base: Any, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    old = base(tmp_path / "old", ENGLISH, 400)
    manifest = train_vocabulary(old, [corpus], tmp_path / "new", kind=kind, size=440)
    first, second = Vocabulary.load(old), Vocabulary.load(tmp_path / "new")
    assert len(second.strings) == second.size == 440
    assert set(second.by_added_text) == set(first.by_added_text)
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "new")
    for text in TEXTS:
        ids = second.tokenizer.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        old_way = first.tokenizer.decode(first.tokenizer.encode(text, add_special_tokens=False).ids, False)
        assert second.tokenizer.decode(ids, skip_special_tokens=False) in (text, old_way)
    text = " ".join(RUSSIAN)
    assert len(second.tokenizer.encode(text).ids) < len(first.tokenizer.encode(text).ids)
    # What the base puts before a text is put there still, with its new ids.
    assert [first.strings[i] for i in first.tokenizer.encode("").ids] == [
        second.strings[i] for i in second.tokenizer.encode("").ids
    ]
    message = [{"role": "user", "content": "x"}]
    assert loaded.apply_chat_template(message, tokenize=False) == "<|user|>x<|end|>"
    assert manifest["settings"]["kind"] == kind


# Model types whose tokenizer class transformers forces read a Unigram file as BPE, or not at all.
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3", "gemma2", "gemma3", "phi", "phi3", "gpt2", "gpt-neox"])
def test_unigram_ids_beside_a_model(kind: str, make_model: Callable[..., Path], corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = save_byte_level(make_model("model", kind, rows=448), ENGLISH, 400)
    train_vocabulary(model, [corpus], tmp_path / "tokenizer", kind="unigram", size=440)
    initialise(model, tmp_path / "tokenizer", tmp_path / "out")
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    direct = Vocabulary.load(tmp_path / "out").tokenizer
    for text in TEXTS:
        wanted = direct.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == wanted


def test_a_model_type_that_forces_its_tokenizer_class_is_refused(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    # transformers 5 reads every tokenizer beside a qwen2 model as Qwen2's BPE, whatever its class says.
    model = save_byte_level(make_model("model", "qwen2", rows=448), ENGLISH, 400)
    with pytest.raises(DarumeruError, match="forces its own tokenizer class"):
        train_vocabulary(model, [corpus], tmp_path / "tokenizer", kind="unigram", size=440)
    assert not (tmp_path / "tokenizer").exists()


def test_bad_requests(corpus: Path, tmp_path: Path) -> None:
    old = save_byte_level(tmp_path / "old", ENGLISH, 400)
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("мама мыла раму")
    for arguments, message in (
        ({"kind": "wordpiece", "size": 500}, "choose bpe or unigram"),
        ({"kind": "bpe", "size": 100}, "must be above 259"),
        ({"kind": "bpe", "size": 5000}, "is enough for"),
    ):
        with pytest.raises(UserError, match=message):
            train_vocabulary(old, [tiny], tmp_path / "new", **arguments)  # type: ignore[arg-type]
    spec = json.loads((old / "tokenizer.json").read_text())
    spec["model"]["type"] = "WordPiece"
    (old / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="is of type WordPiece"):
        train_vocabulary(old, [corpus], tmp_path / "new", kind="bpe", size=500)
