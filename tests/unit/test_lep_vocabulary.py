"""The invariants of a new vocabulary, on small tokenizers of both families; and bad input."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError, UserError
from lep.corpus.clean import clean_corpus
from lep.measure.held_out import HeldOut
from lep.model.folders import folder_fingerprint
from lep.tokenizer import words as words_module
from lep.tokenizer.scripts import has_script, only_in_script, scripts_of
from lep.tokenizer.vocabulary import Vocabulary, bytes_to_chars, chars_to_bytes
from lep.tokenizer.words import count_tokens, count_words
from lep.vocab.check import check_vocabulary, way_of
from lep.vocab.commands import check_folders, extend_vocabulary, optimize_vocabulary, swap_vocabulary
from lep.vocab.extend import extend, prune, without
from lep.vocab.report import report_vocabularies
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level, save_sentencepiece

MAKERS = {"byte-level": save_byte_level, "sentencepiece": save_sentencepiece}
# Old tokenizers that know some Cyrillic, so that old merges meet new ones.
SOME = [*ENGLISH, *RUSSIAN[:1]]


@pytest.fixture(params=MAKERS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MAKERS[request.param](tmp_path / "old", SOME, 420)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in (RUSSIAN + ENGLISH) * 4))
    return path


@pytest.fixture
def english(tmp_path: Path) -> Path:
    path = tmp_path / "english.txt"
    path.write_text("\n".join(ENGLISH))
    return path


def test_extend_keeps_every_invariant(old: Path, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    before = folder_fingerprint(old)
    manifest = extend_vocabulary(old, [corpus], tmp_path / "new", add=60)
    assert folder_fingerprint(old) == before
    first, second = Vocabulary.load(old), Vocabulary.load(tmp_path / "new")
    assert second.size == first.size + 60
    assert sorted(set(second.ids.values()) - set(first.ids.values())) == list(range(first.size, first.size + 60))
    assert second.merges[: len(first.merges)] == first.merges
    for token, index in first.ids.items():
        assert second.ids[token] == index
    for index in range(first.size, second.size):
        assert second.bare.encode(second.strings[index]).ids == [index]
        assert has_script(second.bytes_of(index).decode(errors="ignore"), ("Cyrillic",))
    for text in ENGLISH:
        assert first.tokenizer.encode(text).ids == second.tokenizer.encode(text).ids
    loaded: Any = AutoTokenizer.from_pretrained(tmp_path / "new")
    for text in RUSSIAN + ENGLISH:
        ids = second.tokenizer.encode(text, add_special_tokens=False).ids
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids
        assert loaded.decode(ids) == text
        assert len(ids) <= len(first.tokenizer.encode(text, add_special_tokens=False).ids)
    assert all(check.passed for check in check_folders(old, tmp_path / "new", [corpus]))
    assert manifest["measures"]["added"] == 60
    assert way_of(first, second) == "extend"


def test_the_same_corpus_gives_the_same_vocabulary(old: Path, corpus: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        extend_vocabulary(old, [corpus], tmp_path / name, add=40)
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (tmp_path / "two" / "tokenizer.json").read_bytes()


def test_merges_written_as_strings_are_read_and_stay_strings(tmp_path: Path, corpus: Path) -> None:
    folder = save_byte_level(tmp_path / "old", SOME, 420)
    pairs = Vocabulary.load(folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["merges"] = [" ".join(pair) for pair in spec["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    assert Vocabulary.load(folder).merges == pairs.merges
    extend_vocabulary(folder, [corpus], tmp_path / "new", add=40)
    assert isinstance(json.loads((tmp_path / "new" / "tokenizer.json").read_text())["model"]["merges"][-1], str)


def test_added_tokens_above_the_vocabulary_keep_their_ids(tmp_path: Path, corpus: Path) -> None:
    from support.lep_models import add_special

    folder = save_byte_level(tmp_path / "old", SOME, 400)
    add_special(folder, ["<|tool|>", "<|user|>"])
    first = Vocabulary.load(folder)
    assert first.by_added_text["<|user|>"] not in first.spec["model"]["vocab"].values()
    extend_vocabulary(folder, [corpus], tmp_path / "new", add=40)
    second = Vocabulary.load(tmp_path / "new")
    assert second.by_added_text == first.by_added_text
    assert second.tokenizer.encode("<|user|>").ids == [first.by_added_text["<|user|>"]]


def test_optimize_keeps_what_the_texts_to_keep_need(old: Path, corpus: Path, english: Path, tmp_path: Path) -> None:
    first = Vocabulary.load(old)
    needed = count_tokens(ENGLISH, first)
    keep = len(first.strings) - 12
    manifest = optimize_vocabulary(old, [corpus], tmp_path / "new", keep=keep, add=50, keep_languages=[english])
    second = Vocabulary.load(tmp_path / "new")
    assert len(second.strings) == second.size == keep + 50
    for index in np.flatnonzero(needed):
        assert first.strings[int(index)] in second.ids
    for text in ENGLISH:
        left = [first.bytes_of(i) for i in first.tokenizer.encode(text, add_special_tokens=False).ids]
        assert left == [second.bytes_of(i) for i in second.tokenizer.encode(text, add_special_tokens=False).ids]
    for text in RUSSIAN:
        assert second.tokenizer.decode(second.tokenizer.encode(text).ids) == text
    assert "texts to keep are segmented as before" in manifest["measures"]["checks"]
    # The template's ids follow the tokens.
    for text, index in second.by_added_text.items():
        assert second.tokenizer.encode(text, add_special_tokens=False).ids == [index]


def test_swap_keeps_the_size_and_the_other_ids(old: Path, corpus: Path, english: Path, tmp_path: Path) -> None:
    swap_vocabulary(old, [corpus], tmp_path / "new", count=12, keep_languages=[english])
    first, second = Vocabulary.load(old), Vocabulary.load(tmp_path / "new")
    assert second.size == first.size
    kept = [token for token in first.ids if token in second.ids]
    assert len(kept) == len(first.ids) - 12
    assert all(first.ids[token] == second.ids[token] for token in kept)
    for text in ENGLISH:
        assert first.tokenizer.encode(text).ids == second.tokenizer.encode(text).ids
    assert way_of(first, second) == "swap"


def test_pruning_takes_leaves_first(tmp_path: Path) -> None:
    vocabulary = Vocabulary.load(save_byte_level(tmp_path / "old", ["abcd abcd abcd abc ab"] * 5, 270))
    usage = np.zeros(vocabulary.size, dtype=np.int64)
    # "ab" is never used itself, yet what is built on it keeps it alive.
    usage[vocabulary.ids["abcd"]] = 100
    gone = prune(vocabulary, usage, remove=1, protect=[vocabulary.ids["abcd"]])
    assert vocabulary.ids["ab"] not in gone
    spec, ids = without(vocabulary, gone, compact=True)
    smaller = Vocabulary(spec)
    assert smaller.size == vocabulary.size - 1
    assert smaller.ids["abcd"] == ids[vocabulary.ids["abcd"]]
    with pytest.raises(UserError, match="can be removed"):
        prune(vocabulary, usage, remove=200)


def test_a_broken_tokenizer_is_refused(
    old: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lep.vocab import commands as module

    def broken(*arguments: Any, **settings: Any) -> Any:
        made = extend(*arguments, **settings)
        made.spec["model"]["merges"] = made.spec["model"]["merges"][:-1]
        return made

    monkeypatch.setattr(module, "extend", broken)
    with pytest.raises(DarumeruError, match="every new token can be produced"):
        extend_vocabulary(old, [corpus], tmp_path / "new", add=30)
    assert not [path for path in tmp_path.iterdir() if "new" in path.name]


def test_each_broken_invariant_is_found(tmp_path: Path, corpus: Path) -> None:
    first = Vocabulary.load(save_byte_level(tmp_path / "old", SOME, 420))
    extend_vocabulary(tmp_path / "old", [corpus], tmp_path / "new", add=40)

    def failures(change: Any) -> set[str]:
        folder = tmp_path / "broken"
        folder.mkdir(exist_ok=True)
        for path in (tmp_path / "new").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        spec = json.loads((folder / "tokenizer.json").read_text())
        change(spec, folder)
        (folder / "tokenizer.json").write_text(json.dumps(spec))
        checks = check_vocabulary(
            first, Vocabulary.load(folder), [*RUSSIAN, *ENGLISH, "lazy"], scripts=("Cyrillic",), way="extend"
        )
        return {check.name for check in checks if not check.passed}

    def first_merge_last(spec: Any, _: Path) -> None:
        spec["model"]["merges"].append(spec["model"]["merges"].pop(0))

    def english_merge(spec: Any, _: Path) -> None:
        spec["model"]["vocab"]["theĠ"] = 10_000
        left, right = first.bare.encode("lazy").tokens[:2]
        spec["model"]["merges"].append([left, right])
        spec["model"]["vocab"].setdefault(left + right, 10_001)

    def other_flags(spec: Any, _: Path) -> None:
        spec["added_tokens"][0]["lstrip"] = True

    def other_template(_: Any, folder: Path) -> None:
        (folder / "chat_template.jinja").write_text("something else")

    def twice(spec: Any, _: Path) -> None:
        spec["model"]["merges"].append(spec["model"]["merges"][-1])

    assert failures(lambda *_: None) == set()
    assert "the old merges are a prefix of the new ones" in failures(first_merge_last)
    found = failures(english_merge)
    assert "texts without Cyrillic are encoded as before" in found
    assert "every new token can be produced" in found
    assert "special and added tokens keep text, flags and single ids" in failures(other_flags)
    assert "the chat template renders the same text" in failures(other_template)
    assert "merges are consistent: parts and result exist, each once" in failures(twice)


def test_bad_corpora(old: Path, tmp_path: Path, english: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    latin1 = tmp_path / "latin1.txt"
    latin1.write_bytes("строка\n".encode() + "привет".encode("cp1251"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"body": "текст"}\n')
    broken = tmp_path / "broken.txt.gz"
    broken.write_bytes(gzip.compress("текст".encode() * 1000)[:-20])
    strange = tmp_path / "text.docx"
    strange.write_text("x")
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("мама мыла раму")
    for source, message in (
        (empty, "holds no word in Cyrillic"),
        (english, "holds no word in Cyrillic"),
        (latin1, "is not UTF-8"),
        (rows, "no text field 'text' .it has: body"),
        (broken, "not a whole compressed file"),
        (strange, "unknown ending"),
        (tiny, "is enough for"),
        (tmp_path / "none.txt", "There is no text file"),
    ):
        with pytest.raises(UserError, match=message):
            extend_vocabulary(old, [source], tmp_path / "new", add=500, min_count=1)
    with pytest.raises(UserError, match="No script is known"):
        extend_vocabulary(old, [tiny], tmp_path / "new", add=5, lang="xx")
    with pytest.raises(UserError, match="Unknown script in Klingon"):
        extend_vocabulary(old, [tiny], tmp_path / "new", add=5, scripts=["Klingon"])
    assert not (tmp_path / "new").exists()


def test_a_line_whose_text_cannot_be_trained_on_is_named(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "Привет"}\n{"text": "обрезано \\ud83d"}\n')
    with pytest.raises(UserError, match=r"Line 2 of .*texts\.jsonl has half a character"):
        list(read_texts([file]))
    clean_corpus([file], tmp_path / "clean.jsonl", lang="ru")  # which mends it
    assert list(read_texts([tmp_path / "clean.jsonl"])) == ["Привет", "обрезано"]
    file.write_text('{"text": "a"}\n{"text": null}\n')
    with pytest.raises(
        UserError, match=r"Line 2 of .*texts\.jsonl has null in its field 'text', where a text is wanted"
    ):
        list(read_texts([file]))


def test_a_name_ends_at_the_first_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("data/lang=ru")
    folder.mkdir(parents=True)
    (folder / "h.jsonl").write_text('{"text": "привет мир"}\n')
    old = save_byte_level(tmp_path / "old", SOME, 400)
    for source, name in (("ru=data/lang=ru/h.jsonl", "ru"), ("data/lang=ru/h.jsonl", "h")):
        assert HeldOut.read([source]).pieces == {name: ["привет мир"]}
        assert [row.text for row in report_vocabularies([old], [source]).rows] == [name]


def test_all_corpus_formats_give_the_same_texts(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    import zstandard

    texts = ["первая строка", "second line"]
    plain = "\n".join(texts).encode()
    rows = "\n".join(json.dumps({"text": text}) for text in texts).encode()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + plain)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(plain))
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(plain))
    (tmp_path / "a.jsonl").write_bytes(rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(rows))
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        assert list(read_texts([path])) == texts, path


def test_scripts_and_bytes() -> None:
    assert scripts_of("ru", None) == ("Cyrillic",)
    assert scripts_of("ru", ["any"]) == ()
    cyrillic = ("Cyrillic",)
    assert only_in_script("при".encode(), cyrillic)
    assert only_in_script(b" \xd0", cyrillic)  # D0 begins Cyrillic characters only
    assert not only_in_script(b"\xd4", cyrillic)  # D4 begins Armenian ones too
    assert not only_in_script(b"\xb0 ", cyrillic)  # the end of some character
    assert not only_in_script(b" the", cyrillic)
    assert only_in_script("é".encode() + b"\xd0", cyrillic)
    assert bytes(range(256)) == chars_to_bytes(bytes_to_chars(bytes(range(256))))


def test_words_are_counted_as_the_tokenizer_cuts_them(tmp_path: Path) -> None:
    byte_level = Vocabulary.load(save_byte_level(tmp_path / "b", SOME, 400))
    words = count_words(["мама, мыла раму. мама\nмыла the", "мама"], byte_level, ("Cyrillic",))
    decoded = {(chars_to_bytes(word) or b"").decode(): count for word, count in words.items()}
    assert decoded == {"мама": 2, " мыла": 1, " раму": 1, " мама": 1, "мыла": 1}
    pieces = Vocabulary.load(save_sentencepiece(tmp_path / "s", SOME, 400))
    assert count_words(["мама, мыла (раму)"], pieces, ("Cyrillic",)) == {"мама": 1, "▁мыла": 1, "раму": 1}


def test_a_corpus_with_more_words_than_fit_ends_and_keeps_the_frequent_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = Vocabulary.load(save_byte_level(tmp_path / "bytes", ENGLISH, 300))
    made = []

    class Counted(words_module.Counter[str]):
        def __init__(self, *items: Any) -> None:
            made.append(None)
            super().__init__(*items)

    monkeypatch.setattr(words_module, "_MOST_CHUNKS", 3000)
    monkeypatch.setattr(words_module, "Counter", Counted)
    draw = np.random.default_rng(0)
    # 4,000 words, each seen about 100 times, and one in every document.
    texts = [" ".join(["мир", *(f"сл{n}" for n in draw.integers(4000, size=200))]) for _ in range(2000)]
    found = count_words(texts, vocabulary, ("Cyrillic",))
    decoded = {(chars_to_bytes(word) or b"").decode(): count for word, count in found.items()}
    assert decoded["мир"] == 2000
    # Throwing out is a pass over all words in memory: it may not come with every document.
    assert len(made) < 500


@pytest.mark.parametrize("prepended", [True, False])
def test_words_of_one_token_are_found_whether_or_not_the_tokenizer_puts_a_space_before_a_text(
    tmp_path: Path, prepended: bool
) -> None:
    folder = save_sentencepiece(tmp_path / "pieces", ["кот дом кот дом"] * 9, 300)
    spec = json.loads((folder / "tokenizer.json").read_text())
    if not prepended:  # as Gemma's: spaces are replaced, and nothing is put before a text
        spec["pre_tokenizer"] = None
        spec["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    text = tmp_path / "text.txt"
    text.write_text("вот кот и дом, а в доме кот и кот\n")
    # Four of the ten words are кот or дом, the only words that are tokens.
    assert report_vocabularies([folder], [str(text)]).rows[0].one_token_words == pytest.approx(0.4)


def test_a_token_without_a_merge_is_found_where_whole_words_need_none(tmp_path: Path, corpus: Path) -> None:
    """Llama-3's `ignore_merges`: a word that is a token is found whole, but inside a longer word merges must make it."""
    old = save_byte_level(tmp_path / "old", ENGLISH, 400)
    spec = json.loads((old / "tokenizer.json").read_text())
    spec["model"]["ignore_merges"] = True
    (old / "tokenizer.json").write_text(json.dumps(spec))
    extend_vocabulary(old, [corpus], tmp_path / "new", add=40)
    spec = json.loads((tmp_path / "new" / "tokenizer.json").read_text())
    dropped = "".join(spec["model"]["merges"].pop())
    (tmp_path / "new" / "tokenizer.json").write_text(json.dumps(spec))
    first, second = Vocabulary.load(old), Vocabulary.load(tmp_path / "new")
    failed = {c.name: c.detail for c in check_vocabulary(first, second, [], scripts=("Cyrillic",)) if not c.passed}
    assert repr(dropped) in failed["every new token can be produced"]
