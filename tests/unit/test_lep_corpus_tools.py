"""lep corpus clean, dedup and mix: what goes, what stays, and what is said about it."""

import errno
import gzip
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.texts import read_texts
from darumeru.errors import DarumeruError, UserError
from lep import cli
from lep.corpus.clean import Cleaner, clean_corpus
from lep.corpus.dedup import dedup_corpus, shingles
from lep.corpus.mix import Source, mix_corpus
from lep.corpus.rules import LINE_RULES, TEXT_RULES
from lep.corpus.write import new_corpus, report_path
from lep.tokenizer.scripts import script_shares

PROSE = "Над городом висела серая пелена дождя, и редкие прохожие спешили по домам. Никто не оглядывался."
MORE = "На углу стоял извозчик; лошадь его, мокрая и понурая, изредка переступала с ноги на ногу и вздыхала."
RUSSIAN_SCRIPTS = ("Cyrillic", "Latin")


def save(path: Path, texts: list[str], **others: str) -> Path:
    lines = (json.dumps({"text": text, **others}, ensure_ascii=False) for text in texts)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def cleaned(text: str, **settings: Any) -> str | None:
    return Cleaner(RUSSIAN_SCRIPTS, **settings).clean(text)


# Clean


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("Привет, как ваши дела?".encode().decode("cp1251", "ignore"), "mojibake"),
        ("Привет, как ваши дела?".encode().decode("cp1252", "ignore"), "mojibake"),
        ("Привет, как ваши дела сегодня".encode("cp1251").decode("latin-1"), "mojibake"),
        ("Привет, как ваши дела сегодня".encode("koi8-r").decode("cp1251"), "mojibake"),
        ("Он сказал: при\ufffd\ufffdет", "mojibake"),
        ("Опубликовано: 12.03.2019, 14:05", "metadata"),
        ("Теги: политика, экономика", "metadata"),
        ("ISBN 978-5-699-12014-7", "metadata"),
        ("© 2020 ООО «Ромашка». Все права защищены", "metadata"),
        ("Главная | Новости | Контакты", "navigation"),
        ("Home » Blog » Linux » Tips", "navigation"),
        ("Читать далее →", "navigation"),
        ("Read more", "navigation"),
        ("| 2010 | 12,5 | 13,1 |", "tables"),
        ("12.5 13.1 14.2 15.9 100.0", "tables"),
        ('function foo() { return $("#bar").val(); }', "symbols"),
        ('{"a": 1, "b": [2, 3], "c": {"d": 4}}', "symbols"),
        ("iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4iVBORw0K", "symbols"),
        ("—" * 30, "symbols"),
    ],
)
def test_a_bad_line_goes_and_the_prose_around_it_stays(line: str, rule: str) -> None:
    cleaner = Cleaner(RUSSIAN_SCRIPTS)
    assert cleaner.clean(f"{PROSE}\n{line}\n{MORE}") == f"{PROSE}\n{MORE}"
    assert {name for name, tally in cleaner.tallies.items() if tally.lines} == {rule}
    tally = cleaner.tallies[rule]
    assert (tally.changed, tally.dropped, tally.lines, tally.characters) == (1, 0, 1, len(line) + 1)
    assert tally.examples == [line[:120]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Пишите: https://example.com/a?b=c&d=1.", "Пишите: ."),
        ("Сайт (https://ru.wikipedia.org/wiki/Foo_(bar)), там всё.", "Сайт, там всё."),
        ("Ссылка:\nhttps://example.com/a\nwww.example.com\nКонец.", "Ссылка:\nКонец."),
        ('Смотри [наш сайт](https://a.ru/x "t").', "Смотри наш сайт."),
        ("До a.b@example.com после", "До после"),
        ("<p>Один <b>жирный</b> &laquo;текст&raquo;</p><script>var a = 1;</script>", "Один жирный «текст»"),
        ("Число a < b, но b > c.", "Число a < b, но b > c."),
        ("{{Карточка|имя={{nobr|И}}}}'''Иван''' — [[Русские|русский]] [[князь]].[1]", "Иван — русский князь."),
        ("[[Файл:A.jpg|thumb|Вид [[дом]]а]]== История [править | править код] ==", "История"),
        ("Взрыв\u00adной\u200b си\u0301лы \ufeffслово\x7fдругое\r\nстрока", "Взрывной си\u0301лы слово другое\nстрока"),
        ("Город Токио (яп. 東京, Токё) велик.", "Город Токио велик."),
        ("Много   пробелов\u00a0здесь \n\n\n\nи тут", "Много пробелов здесь\n\nи тут"),
    ],
)
def test_text_rules(text: str, wanted: str) -> None:
    assert cleaned(text, skip=["scraps"]) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "— Назад!\n— Вход.\n— Далее?\n— Подробнее он не рассказал.",
        "* * *\nЯ вас любил: любовь ещё, быть может,\nВ душе моей угасла не совсем;\n12 июля 1919",
        "XII\n. . . . . . . . . . . . . . . . . . . . . . . .\nЛикуй . . . . . . . . . . . . . .",
        "Г-н ***, помещик N-ской губернии, и г-жа **** приехали; дом стоил 1 200 000 р. в 1887 г.",
        "РСФСР, СССР и ВЧК ОГПУ НКВД спорили.",
        "École normale supérieure, Þórður Ægir, Ça été déjà là où.",
        "Рівне і Київ, її м’який знак.",
        "ЛОПАХИН (идёт к двери). Прощайте.\nАвтор: Пушкин\nФото на память, реклама — двигатель торговли.",
        "Здесь М<ария> В<асильевна> заплакала, и Н<иколай> С<тепанович> вышел.",
        "Поэзия / проза, x² + y² = z², 10 + 5 = 15 «А» и «Б».",
        "``Первое'', ``Курс'', ``Такси +'', ``Форсаж''.",
        "Ветер, ветер!\nНа ногах не стоит человек.\nВетер, ветер!\nНа всём Божьем свете!\nВетер, ветер!",
        "    Лесенкой\n        падают\n            строки.",
    ],
)
def test_verse_drama_and_dialogue_come_through_unchanged(text: str) -> None:
    assert cleaned(text) == text.rstrip()


def test_documents_that_are_dropped_are_counted_by_the_rule() -> None:
    contents = "\n".join(f"CHAPTER {number}\nПродолжение следует" for number in ("I", "II", "III", "IV", "V", "VI"))
    texts = {
        "scraps": f"Войти\nРегистрация\nТеги: раз, два, три, четыре\n{PROSE[:20]}",
        "scripts": "Слово 本書は日本語で書かれています",
        "few letters": "Код КАТО -- 113247300, 6322682502, 12345.",
        "repetitive": contents,
        "short": "Коротко.",
        "long": "Слово за словом. " * 50,
        "empty": "https://example.com",
    }
    cleaner = Cleaner(RUSSIAN_SCRIPTS, min_chars=20, max_chars=500)
    for text in texts.values():
        assert cleaner.clean(text) is None
    assert cleaner.clean(PROSE) == PROSE
    assert {name: tally.dropped for name, tally in cleaner.tallies.items() if tally.dropped} == dict.fromkeys(texts, 1)


def test_scripts_of_a_document() -> None:
    text = "Буква α — первая в алфавите греков, и Ω — последняя."
    assert cleaned(text) == "Буква — первая в алфавите греков, и — последняя."
    assert cleaned(text, max_other=0.01) is None
    assert cleaned(text, skip=["scripts"]) == text
    assert Cleaner((*RUSSIAN_SCRIPTS, "Greek")).clean(text) == text
    assert Cleaner(()).clean(text) == text
    hindi = "यह एक वाक्य है और यह दूसरा वाक्य है।"
    assert Cleaner(("Devanagari",)).clean(hindi) == hindi


def test_nfc_only_when_asked() -> None:
    split = "и\u0306од, ё\u0301лка"
    assert cleaned(split) == split
    assert cleaned(split, nfc=True) == "йод, ё\u0301лка"


def test_texts_with_a_benchmarks_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = (Path(__file__).parents[2] / "darumeru/data/mini/cp_para_ru/test.jsonl").read_text(encoding="utf-8")
    document = json.loads(rows.splitlines()[0])["outputs"]
    # Found in what is written, whatever the text was before: the link in the middle goes.
    words = document.split()
    planted = f"{PROSE} {' '.join([*words[:8], 'https://example.com', *words[8:15]]).upper()} {MORE}"
    corpus = save(tmp_path / "a.jsonl", [PROSE, planted, MORE])
    report = clean_corpus([corpus], tmp_path / "b.jsonl", exclude_benchmark="darumeru", data="mini")
    assert list(read_texts([tmp_path / "b.jsonl"])) == [PROSE, MORE]
    tally = report["measures"]["rules"]["benchmark"]
    assert (tally["dropped"], tally["changed"], len(tally["examples"])) == (1, 0, 1)
    assert report["settings"]["exclude_benchmark"] == "darumeru"
    assert "benchmark" not in clean_corpus([corpus], tmp_path / "c.jsonl")["measures"]["rules"]
    with pytest.raises(UserError, match="Unknown suite 'darumera'"):
        clean_corpus([corpus], tmp_path / "d.jsonl", exclude_benchmark="darumera", data="mini")
    assert not (tmp_path / "d.jsonl").exists()


def test_rules_can_be_skipped_and_unknown_ones_are_refused() -> None:
    for name in (*TEXT_RULES, *LINE_RULES):
        assert name not in Cleaner(RUSSIAN_SCRIPTS, skip=[name]).tallies
    assert cleaned(f"{PROSE} https://example.com", skip=["links"]) == f"{PROSE} https://example.com"
    with pytest.raises(UserError, match=r"No rule 'likns' to skip. These can be: markup, controls, wiki, links"):
        Cleaner(RUSSIAN_SCRIPTS, skip=["likns"])
    with pytest.raises(UserError, match="at least 10 and at most 5"):
        Cleaner(RUSSIAN_SCRIPTS, min_chars=10, max_chars=5)


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt", "a.txt.gz", "a.txt.zst"]
)
def test_every_format_reads_back_and_is_the_same_twice(tmp_path: Path, name: str) -> None:
    texts = [PROSE, 'Кавычки "«»" и эмодзи 😀', MORE] + ([] if ".txt" in name else [f"{PROSE}\n\n{MORE}"])
    source = save(tmp_path / "in.jsonl", texts, url="https://example.com/secret")
    output = tmp_path / "out" / name
    report = clean_corpus([source], output)
    assert list(read_texts([output])) == texts
    first = output.read_bytes()
    assert b"secret" not in (gzip.decompress(first) if name.endswith(".gz") else first)
    again = tmp_path / "again" / name
    clean_corpus([source], again)
    assert again.read_bytes() == first
    assert json.loads(report_path(output).read_text()) == report
    assert report["measures"]["kept_documents"] == len(texts)
    assert sorted(path.name for path in output.parent.iterdir()) == sorted([name, f"{name}.report.json"])


def test_line_breaks_do_not_go_into_a_plain_text_file(tmp_path: Path) -> None:
    source = save(tmp_path / "in.jsonl", [PROSE, f"{PROSE}\n{MORE}"])
    output = tmp_path / "out.txt"
    with pytest.raises(UserError, match=r"has line breaks, and a .txt file holds one document a line.*Write .jsonl"):
        clean_corpus([source], output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl"]


def test_half_characters_are_taken_out_or_named(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Слово \\ud83d и слово"}\n')
    for name in ("d.jsonl", "d.parquet", "d.txt"):
        with pytest.raises(UserError, match=r"half a character \(U\+D83D\).*'Слово '. Run `lep corpus clean`"):
            dedup_corpus([source], tmp_path / name)
    report = clean_corpus([source], tmp_path / "c.jsonl")
    assert report["measures"]["rules"]["controls"]["examples"] == ["Слово \\ud83d и слово"]
    assert list(read_texts([tmp_path / "c.jsonl"])) == ["Слово и слово"]


def test_outputs_are_not_overwritten_and_inputs_never(tmp_path: Path) -> None:
    source = save(tmp_path / "in.jsonl", [PROSE])
    output = tmp_path / "out.jsonl"
    clean_corpus([source], output)
    with pytest.raises(UserError, match=r"exists. Name a new file, or add --force"):
        clean_corpus([source], output)
    with pytest.raises(UserError, match="is also an input"):
        clean_corpus([source], source, force=True)
    with pytest.raises(UserError, match=r"unknown ending. Write .jsonl"):
        clean_corpus([source], tmp_path / "out.csv")
    with pytest.raises(UserError, match="unknown ending"):
        clean_corpus([source], tmp_path / "out.parquet.gz")
    with pytest.raises(UserError, match="There is no text file"):
        clean_corpus([tmp_path / "none.jsonl"], tmp_path / "new.jsonl")
    clean_corpus([save(tmp_path / "b.jsonl", [MORE])], output, force=True)
    assert list(read_texts([output])) == [MORE]


def test_a_failure_leaves_nothing_and_a_full_disk_is_named(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    with pytest.raises(DarumeruError, match="No space left on the disk") as failed, new_corpus(output) as writer:
        writer.write(PROSE)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert failed.value.exit_code == 1
    for name in ("out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.parquet"):
        with pytest.raises(ValueError, match="midway"), new_corpus(tmp_path / name) as writer:
            writer.write(PROSE)
            raise ValueError("midway")
    assert list(tmp_path.iterdir()) == []


def test_empty_corpora_and_other_scripts_are_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    for make in (clean_corpus, dedup_corpus):
        with pytest.raises(UserError, match="There is no text in"):
            make([empty], tmp_path / "out.jsonl")
    english = save(tmp_path / "en.jsonl", ["The quick brown fox jumps over the lazy dog."] * 3)
    with pytest.raises(UserError, match=r"Nothing is left of 3 documents.*'scripts'.*Latin 100.0%"):
        clean_corpus([english], tmp_path / "out.jsonl", scripts=["Cyrillic"])
    with pytest.raises(UserError, match="Unknown script"):
        clean_corpus([english], tmp_path / "out.jsonl", scripts=["Cyrilic"])
    japanese = save(tmp_path / "ja.jsonl", ["これは日本語の文章です。とても長い文章です。", PROSE[:20]])
    said: list[str] = []
    clean_corpus([japanese], tmp_path / "ru.jsonl", warn=said.append)
    assert len(said) == 1
    assert "of the letters are not Cyrillic or Latin (found: " in said[0]
    assert "Hiragana" in said[0]


def test_script_shares() -> None:
    assert script_shares(["абвг, 123!", "abcd ефжз"]) == {"Cyrillic": 8 / 12, "Latin": 4 / 12}
    assert list(script_shares(["日本語です", "नमस्ते", "𐎀𐎁"])) == ["Devanagari", "Han", "Hiragana", "other"]
    assert script_shares(["123 …", ""]) == {}
    assert script_shares(["аа", "bbbb"], limit=3) == {"Cyrillic": 2 / 3, "Latin": 1 / 3}


# Dedup


def variants(words: int = 300, seed: int = 0) -> list[str]:
    """A text, and copies in which 1, 2, 5, 10, 30 and 60 of its words are others."""
    draw = random.Random(seed)
    original = [f"слово{draw.randrange(10_000)}" for _ in range(words)]
    texts = [" ".join(original)]
    for changes in (1, 2, 5, 10, 30, 60):
        copy = list(original)
        for place in draw.sample(range(words), changes):
            copy[place] = f"иное{draw.randrange(10_000)}"
        texts.append(" ".join(copy))
    return texts


def jaccard(one: str, other: str) -> float:
    first, second = set(shingles(one, 5)), set(shingles(other, 5))
    return len(first & second) / len(first | second)


def test_near_duplicates_fall_by_their_true_similarity(tmp_path: Path) -> None:
    groups = [variants(seed=seed) for seed in range(30)]
    source = save(tmp_path / "in.jsonl", [text for group in groups for text in group])
    report = dedup_corpus([source], tmp_path / "out.jsonl", num_perm=256)
    kept = set(read_texts([tmp_path / "out.jsonl"]))
    likenesses = Counter()
    for group in groups:
        assert group[0] in kept
        for copy in group[1:]:
            similarity = jaccard(group[0], copy)
            # The estimate's standard error is 0.02 at a similarity of 0.9.
            if similarity > 0.9:
                assert copy not in kept
                likenesses["near"] += 1
            elif similarity < 0.65:
                assert copy in kept
                likenesses["far"] += 1
    assert likenesses["near"] >= 60
    assert likenesses["far"] >= 60
    measures = report["measures"]
    assert measures["duplicates"]["near"]["documents"] == measures["documents"] - measures["kept_documents"]
    assert measures["examples"][0]["kept"] == 1
    assert measures["examples"][0]["dropped"] == 2


def test_the_first_stays_and_exact_duplicates_are_counted_apart(tmp_path: Path) -> None:
    base, near, *_ = variants()
    texts = [PROSE, base, base, f"{base} ", near, near, MORE, "", PROSE.upper().replace(",", " ;")]
    report = dedup_corpus([save(tmp_path / "in.jsonl", texts)], tmp_path / "out.jsonl")
    assert list(read_texts([tmp_path / "out.jsonl"])) == [PROSE, base, MORE]
    counts = report["measures"]["duplicates"]
    # The second copy of the near duplicate is equal to a text that was seen; case and punctuation make a near one.
    assert counts["exact"]["documents"] == 3
    assert counts["near"]["documents"] == 2
    assert report["measures"]["empty_documents"] == 1


def test_short_texts_and_texts_without_spaces(tmp_path: Path) -> None:
    chinese = "北京是中华人民共和国的首都也是全国的政治中心和文化中心以及国际交往中心和科技创新中心"
    texts = [
        "Да.",
        "Нет.",
        "Да!",
        "***",
        "---",
        chinese,
        f"{chinese}也",
        "東京は日本の首都であり世界最大の都市の一つです",
    ]
    dedup_corpus([save(tmp_path / "in.jsonl", texts)], tmp_path / "out.jsonl")
    assert list(read_texts([tmp_path / "out.jsonl"])) == ["Да.", "Нет.", "***", "---", chinese, texts[-1]]


def test_the_same_input_gives_the_same_output(tmp_path: Path) -> None:
    source = save(tmp_path / "in.jsonl", [text for seed in range(10) for text in variants(80, seed)])
    bytes_of = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output = tmp_path / f"{name}.jsonl.gz"
        dedup_corpus([source], output, seed=seed, threshold=0.6)
        bytes_of.append(output.read_bytes())
        assert not [path for path in tmp_path.iterdir() if path.name.endswith((".index", ".unfinished", ".tmp"))]
    assert bytes_of[0] == bytes_of[1]
    assert bytes_of[0] != bytes_of[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 1.5}, "--threshold is a similarity above 0 and at most 1, not 1.5"),
        ({"threshold": 1.0, "num_perm": 4}, "Use more --num-perm"),
        ({"num_perm": 1}, "--num-perm is from 2 to 4096"),
        ({"ngram": 0}, "--ngram at least 1"),
        ({"seed": -1}, "--seed from 0"),
    ],
)
def test_dedup_settings_are_checked(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        dedup_corpus([save(tmp_path / "in.jsonl", [PROSE])], tmp_path / "out.jsonl", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# Mix


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    draw = random.Random(0)
    return [
        save(tmp_path / f"{name}.jsonl", [f"{name}{number} " + "х" * draw.randrange(5, 200) for number in range(count)])
        for name, count in (("a", 400), ("b", 300), ("c", 20))
    ]


def parts(output: Path) -> list[str]:
    return [text.split()[0] for text in read_texts([output])]


def test_shares_hold_all_along_and_nothing_comes_twice(three: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "mix.jsonl"
    report = mix_corpus([Source(str(three[0]), 3), Source(str(three[1]), 1)], output, documents=200)
    names = parts(output)
    assert len(names) == len(set(names)) == 200
    for end in range(4, 201, 4):
        assert abs(sum(name[0] == "a" for name in names[:end]) - 0.75 * end) <= 1
    numbers = [int(name[1:]) for name in names if name[0] == "a"]
    assert numbers == sorted(numbers)
    # A sample of the whole file, not its beginning.
    assert numbers[0] < 40
    assert numbers[-1] > 360
    assert [row["share"] for row in report["measures"]["sources"]] == [0.75, 0.25]
    assert not any(row["ran_out"] for row in report["measures"]["sources"])


def test_shares_of_characters(three: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "mix.parquet"
    report = mix_corpus([Source(str(path)) for path in three[:2]], output, characters=20_000)
    texts = list(read_texts([output]))
    assert 20_000 <= sum(map(len, texts)) < 20_000 + 206
    assert sum(map(len, texts)) - max(map(len, texts)) < 20_000
    assert sum(len(text) for text in texts if text[0] == "a") == pytest.approx(10_000, abs=206)
    assert report["measures"]["characters"] == sum(map(len, texts))


def test_a_seed_is_a_mixture(three: list[Path], tmp_path: Path) -> None:
    made = []
    for name, seed in (("x", 5), ("y", 5), ("z", 6)):
        mix_corpus([Source(str(path)) for path in three], tmp_path / f"{name}.txt", documents=30, seed=seed)
        made.append((tmp_path / f"{name}.txt").read_bytes())
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_source_that_runs_out_is_said(three: list[Path], tmp_path: Path) -> None:
    said: list[str] = []
    report = mix_corpus([Source(str(path)) for path in three], tmp_path / "m.jsonl", documents=300, warn=said.append)
    rows = report["measures"]["sources"]
    assert [row["documents"] for row in rows] == [140, 140, 20]
    assert [row["ran_out"] for row in rows] == [False, False, True]
    assert rows[2]["share"] == pytest.approx(20 / 300, abs=1e-6)
    assert said == ["c.jsonl ran out after 20 documents: 6.7% of the documents instead of 33.3%."]
    assert report["measures"]["reached"]
    said.clear()
    report = mix_corpus([Source(str(path)) for path in three], tmp_path / "n.jsonl", documents=999, warn=said.append)
    assert not report["measures"]["reached"]
    assert report["measures"]["documents"] == 720
    assert said[-1] == "All sources ran out: 720 documents instead of 999."


def test_sources_and_amounts_are_checked(three: list[Path], tmp_path: Path) -> None:
    assert Source.parse("a.jsonl=0.7") == Source("a.jsonl", 0.7)
    assert Source.parse("a.jsonl") == Source("a.jsonl", 1.0)
    odd = save(tmp_path / "x=2.jsonl", [PROSE])
    assert Source.parse(str(odd)) == Source(str(odd), 1.0)
    for weight in ("0", "-1", "nan", "inf", "viel"):
        with pytest.raises(UserError, match=f"The weight '{weight}' of a.jsonl is not a number above 0"):
            Source.parse(f"a.jsonl={weight}")
    one = Source(str(three[0]))
    output = tmp_path / "m.jsonl"
    with pytest.raises(UserError, match="by either --documents or --chars"):
        mix_corpus([one], output)
    with pytest.raises(UserError, match="The amount to write is at least 1, not 0"):
        mix_corpus([one], output, documents=0)
    with pytest.raises(UserError, match="is a source twice"):
        mix_corpus([one, Source(str(three[0].parent / "." / three[0].name), 2)], output, documents=5)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    with pytest.raises(UserError, match="There is no text in"):
        mix_corpus([Source(str(empty))], output, documents=5)
    assert not output.exists()


# The command line and real texts


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["lep", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    first = save(tmp_path / "a.jsonl", [f"{PROSE} https://example.com", PROSE, "Войти"])
    second = save(tmp_path / "[b].jsonl", [MORE, MORE])
    clean, single, mixed = tmp_path / "clean.jsonl.zst", tmp_path / "single.parquet", tmp_path / "mixed.txt"
    assert (
        run(monkeypatch, "corpus", "clean", "--corpus", first, second, "--output", clean, "--skip", "tables", "wiki")
        == 0
    )
    said = capsys.readouterr().out
    assert "corpus clean →" in said
    assert "documents: 4 of 5 (80.0%)" in said
    assert "navigation" in said
    assert "wiki" not in said
    assert run(monkeypatch, "corpus", "dedup", "--corpus", clean, "--output", single) == 0
    assert "documents: 2 of 4 (50.0%)" in capsys.readouterr().out
    assert run(
        monkeypatch, "corpus", "mix", "--source", f"{single}=2", f"{second}=1", "--output", mixed, "--documents", "3"
    ) == 0  # fmt: skip
    assert "[b].jsonl" in capsys.readouterr().out
    assert sorted(read_texts([mixed])) == sorted([PROSE, MORE, MORE])
    assert run(monkeypatch, "corpus", "mix", "--source", f"{first}=x", "--output", mixed, "--documents", "3") == 2
    assert "The weight 'x'" in capsys.readouterr().err


def test_good_russian_and_english_come_through(shared: Path) -> None:
    for name, least in (("ru/ruslit_poems", 0.995), ("ru/ruslit_publicism", 0.999), ("ru/xquad_paragraphs", 0.999),
                        ("ru/ud_sentences", 0.98), ("en/ud_sentences", 0.999), ("en/xquad_paragraphs", 0.998)):  # fmt: skip
        cleaner = Cleaner(RUSSIAN_SCRIPTS)
        texts = list(read_texts([shared / "corpus" / f"{name}.jsonl"]))
        results = [cleaner.clean(text) for text in texts]
        assert sum(result is not None for result in results) >= 0.995 * len(texts), name
        assert sum(len(result or "") for result in results) >= least * sum(map(len, texts)), name
