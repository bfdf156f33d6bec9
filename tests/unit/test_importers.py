"""Raw public files become data sets that the tasks can run on, and faults in them are named with file, line and field."""

from __future__ import annotations

import gzip
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from darumeru.data.bundle import FolderBundle, Row, read_rows
from darumeru.data.importers import import_data, kinds
from darumeru.data.importers.copy import paragraphs_of, sentences_of
from darumeru.errors import UserError
from darumeru.task.check import Report, check_folder
from darumeru.task.suite import Catalogue
from support.tiny import SHARED


def lines(file: Path, rows: list[Row]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def rows_of(output: Path, dataset: str, split: str) -> list[Row]:
    return read_rows(output / dataset / f"{split}.jsonl")


def report_on(output: Path) -> Report:
    report = check_folder(output, Catalogue())
    assert [str(fault) for fault in report.faults] == []
    return report


def said(row: Row) -> list[str]:
    return [m["content"].format(**row["inputs"]) for m in row["messages"]]


# -- every kind on a fixture ------------------------------------------------------------------------------------------


def test_rucola_csv_keeps_sentences_labels_and_parts(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    source.mkdir()
    header = "id,sentence,acceptable,error_type,detailed_source\n"
    (source / "in_domain_dev.csv").write_text(
        header + '7,"Он сказал, что придёт.",1,0,Own\n8,Он сказала что придёт.,0,Morphology,Own\n', encoding="utf-8-sig"
    )
    (source / "out_of_domain_dev.csv").write_text(header + "7,Дождь идёт вверх ногами.,0,Semantics,Own\n")
    (source / "in_domain_train.csv").write_text(header + "".join(f"{i},Пример {i}.,{i % 2},0,Own\n" for i in range(40)))
    (source / "test.csv").write_text("id,sentence\n1,Без метки.\n")
    written = import_data("rucola", source, tmp_path / "out")
    assert [f.relative_to(tmp_path / "out").as_posix() for f in written] == [
        "rucola/validation.jsonl",
        "rucola/train.jsonl",
    ]
    rows = rows_of(tmp_path / "out", "rucola", "validation")
    assert [(r["id"], r["sentence"], r["label"], r["part"]) for r in rows] == [
        (0, "Он сказал, что придёт.", 1, "in_domain_dev"),
        (1, "Он сказала что придёт.", 0, "in_domain_dev"),
        (2, "Дождь идёт вверх ногами.", 0, "out_of_domain_dev"),
    ]
    assert len(rows_of(tmp_path / "out", "rucola", "train")) == 40
    assert report_on(tmp_path / "out").tasks["rucola"] is None


def test_rucola_faults_name_file_line_and_field(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("id,sentence,acceptable\n1,Хорошо.,1\n2,Плохо.,yes\n")
    with pytest.raises(UserError, match=r"train\.csv', line 3, field 'acceptable': must be one of 0, 1, this is 'yes'"):
        import_data("rucola", file, tmp_path / "out")
    file.write_text("id,sentence,acceptable\n1,Хорошо.\n")
    with pytest.raises(UserError, match=r"line 2: 2 columns, but the first line names 3"):
        import_data("rucola", file, tmp_path / "out")
    with pytest.raises(UserError, match="train, in_domain_train, in_domain_dev"):
        import_data("rucola", lines(tmp_path / "strange.jsonl", [{}]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_mmlu_is_english_only_and_says_so(tmp_path: Path, form: str) -> None:
    source = tmp_path / "data"
    if form == "csv":
        for split, count in (("test", 3), ("dev", 5)):
            (source / split).mkdir(parents=True)
            text = "".join(f'"Question {split} {i}, what?",one,two,three,None,{"ABCD"[i % 4]}\n' for i in range(count))
            (source / split / f"high_school_physics_{split}.csv").write_text(text)
        (source / "test" / "high_school_physics_val.csv").write_text("broken\n")  # not a split that is used
    else:
        for split, count in (("test", 3), ("dev", 5)):
            options = {"A": "one", "B": "two", "C": "three", "D": "None"}
            lines(
                source / f"{split}.jsonl",
                [
                    {"subject": "high_school_physics", "question": f"Question {split} {i}, what?", **options}
                    | {"answer": "ABCD"[i % 4]}
                    for i in range(count)
                ],
            )
    import_data("mmlu", source, tmp_path / "out")
    test = rows_of(tmp_path / "out", "mmlu_nlpcoreteam", "test")
    assert test[1] == {
        "subject": "high_school_physics",
        "question_en": "Question test 1, what?",
        "choices_en": ["one", "two", "three", "None"],
        "answer": 1,
    }
    assert len(rows_of(tmp_path / "out", "mmlu_nlpcoreteam", "dev")) == 5
    report = report_on(tmp_path / "out")
    assert report.tasks["mmlu_en"] is None
    assert "no row has a usable field 'question_ru'" in str(report.tasks["mmlu_ru"])
    task = Catalogue().load(["mmlu_ru"], FolderBundle(tmp_path / "out", "out"))["mmlu_ru"]
    with pytest.raises(UserError, match=r"row 1: field 'question_ru' is undefined"):
        task.docs()


def parus(number: int, **changes: Any) -> Row:
    row = {"premise": f"Случай {number}.", "choice1": "Первое.", "choice2": "Второе.", "question": "cause", "label": 1}
    return {**row, "idx": number, **changes}


def test_parus_keeps_relation_and_label_and_takes_examples_away(tmp_path: Path) -> None:
    rows = [parus(0, premise="Фигура {x} упала."), parus(1, question="effect", label=0), *map(parus, range(2, 9))]
    import_data("parus", lines(tmp_path / "val.jsonl", rows), tmp_path / "out")
    test, prompt = (rows_of(tmp_path / "out", "parus", split) for split in ("test", "prompt"))
    assert (len(test), len(prompt)) == (4, 5)
    assert [r["meta"]["id"] for r in test] == [0, 1, 2, 3]
    assert not {r["inputs"]["premise"] for r in test} & {r["inputs"]["premise"] for r in prompt}
    assert prompt[0]["outputs"] == "2"
    assert said(prompt[0])[1] == "Ответ: 2"
    assert "Фигура {x} упала." in said(prompt[0])[0]  # braces in data are no template
    assert prompt[1]["meta"]["task"] == "effect"
    assert prompt[1]["outputs"] == "1"
    assert (
        said(prompt[0])[0].split("\n")[1] != said(prompt[1])[0].split("\n")[1]
    )  # cause and effect are asked for apart
    assert said(test[0])[1] == "Ответ:"
    assert report_on(tmp_path / "out").tasks["parus"] is None


def test_too_few_rows_leave_nothing_to_test(tmp_path: Path) -> None:
    file = lines(tmp_path / "val.jsonl", [parus(i) for i in range(5)])
    with pytest.raises(UserError, match=r"5 usable items on 5 different texts; 5 become few-shot examples"):
        import_data("parus", file, tmp_path / "out")
    import_data("parus", file, tmp_path / "out", fewshot=2)
    assert len(rows_of(tmp_path / "out", "parus", "test")) == 3


def rwsd(text: str, label: Any) -> Row:
    target = {"span1_text": "Маша", "span2_text": "она ушла", "span1_index": 0, "span2_index": 9}
    return {"text": text, "target": target, "label": label, "idx": 3}


def test_rwsd_examples_come_from_train_and_share_no_text_with_the_test(tmp_path: Path) -> None:
    lines(tmp_path / "raw" / "val.jsonl", [rwsd("Текст А.", True), rwsd("Текст Б.", False)])
    train = [rwsd("Текст А.", True), *(rwsd(f"Текст {i}.", i % 2 == 0) for i in range(7))]
    lines(tmp_path / "raw" / "train.jsonl", train)
    import_data("rwsd", tmp_path / "raw", tmp_path / "out")
    test, prompt = (rows_of(tmp_path / "out", "rwsd", split) for split in ("test", "prompt"))
    assert [r["outputs"] for r in test] == ["Да", "Нет"]
    assert [r["inputs"]["text"] for r in prompt] == [f"Текст {i}." for i in range(5)]
    assert [said(r)[1] for r in prompt[:2]] == ["Ответ: Да", "Ответ: Нет"]
    assert "«она ушла»" in said(test[0])[0]
    assert report_on(tmp_path / "out").tasks["rwsd"] is None


def test_rwsd_of_one_file_never_shows_a_test_text_as_an_example(tmp_path: Path) -> None:
    rows = [rwsd(f"Текст {i // 2}.", i % 2 == 0) for i in range(20)]
    import_data("rwsd", lines(tmp_path / "dev.jsonl", rows), tmp_path / "out")
    test, prompt = (rows_of(tmp_path / "out", "rwsd", split) for split in ("test", "prompt"))
    assert (len(test), len(prompt)) == (10, 5)
    assert not {r["inputs"]["text"] for r in test} & {r["inputs"]["text"] for r in prompt}


def use_item(number: int, question: Row, solution: Row, text: str, score: int = 1) -> Row:
    return {"id": str(number), "text": text, "question": question, "solution": solution, "score": score}


def use_variant(name: str) -> list[Row]:
    """Items of all types of one exam variant; each type's raw form is that of the public set."""
    numbered = [{"id": str(i), "text": f"{i}) ряд {name}{i}"} for i in (1, 2, 3)]
    run_together = "".join(option["text"] for option in numbered)
    column = [{"id": "A", "text": "А) первая ошибка"}, {"id": "B", "text": "Б) вторая ошибка"}]
    return [
        use_item(
            1,
            {"type": "multiple_choice", "choices": numbered},
            {"correct_variants": [["3", "1"], ["1", "3"]]},
            f"Укажите номера предложений.\xa01)Первое {name}. (2)Второе.",
        ),
        use_item(4, {"type": "text"}, {"correct": "Звони́т 1"}, f"Где ударение?\nзвонИт {name}"),
        use_item(
            8,
            {"type": "matching", "choices": numbered, "left": column},
            {"correct": {"B": "1", "A": "3"}},
            f"Установите соответствие {name}. А) первая ошибкаБ) вторая ошибка {run_together}",
            score=5,
        ),
        use_item(
            9,
            {"type": "multiple_choice", "choices": numbered},
            {"correct": ["2"]},
            f"Укажите варианты ответов.\xa0{run_together}",
        ),
        use_item(
            14, {"type": "text"}, {"correct_variants": ["всё-таки", "всётаки", "Тоже"]}, f"Выпишите слова {name}."
        ),
        use_item(
            17,
            {"type": "multiple_choice", "choices": [{"id": str(i), "placeholder": f"({i})"} for i in (1, 2)]},
            {"correct": ["2", "1"]},
            f"Где запятые?\nРека (1) текла (2) {name}.",
        ),
    ]


def test_use_items_of_every_type(tmp_path: Path) -> None:
    rows = [{"variant": name, **item} for name in ("v1", "v2") for item in use_variant(name)]
    import_data("use", lines(tmp_path / "train.jsonl", rows), tmp_path / "out")
    test, prompt = (rows_of(tmp_path / "out", "use", split) for split in ("test", "prompt"))
    assert {r["meta"]["variant"] for r in prompt} == {"v1"}  # a variant that gives examples is no test
    assert {r["meta"]["variant"] for r in test} == {"v2"}
    by_number = {r["meta"]["id_task"]: r for r in test}
    assert {n: (r["meta"]["type"], r["outputs"], r["meta"]["score"]) for n, r in by_number.items()} == {
        "1": ("multiple_choice_based_on_text", "1,3", 1),
        "4": ("text", "звонит", 1),
        "8": ("matching", "3,1", 5),
        "9": ("multiple_choice_independent_options", "2", 1),
        "14": ("text", "всётаки,тоже", 1),
        "17": ("multiple_choice_options_within_text", "1,2", 1),
    }
    assert {r["meta"]["max_points"] for r in test} == {10}
    first, eighth, ninth = (by_number[n]["inputs"] for n in ("1", "8", "9"))
    assert (first["task"], first["text"]) == ("Укажите номера предложений.", "1)Первое v2. (2)Второе.")
    assert eighth["additional_text"] == "А) первая ошибка\nБ) вторая ошибка"
    assert eighth["choices"] == "1) ряд v21\n2) ряд v22\n3) ряд v23"
    assert (ninth["task"], ninth["text"]) == ("Укажите варианты ответов.", "")  # options are shown once, as a list
    assert all(r["messages"][-1]["content"].removeprefix("Ответ: ") in r["outputs"] for r in prompt)
    assert len({r["meta"]["type"] for r in prompt}) == 5
    assert report_on(tmp_path / "out").tasks["use"] is None


def test_use_variants_as_files_and_items_without_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = [
        use_item(27, {"type": "essay"}, {}, "Напишите сочинение."),
        use_item(21, {"type": "multiple_choice", "choices": [{"id": "1", "link": "(1)"}]}, {"correct": ["7"]}, "Где?"),
        use_item(
            22,
            {"type": "multiple_choice", "choices": [{"id": str(i), "text": "да"} for i in (1, 2)]},
            {"correct_variants": [["1"], ["2"]]},
            "Что верно?",
        ),
    ]
    for name in ("a", "b"):
        file = tmp_path / "raw" / f"variant_{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"tasks": [*use_variant(name), *odd]}), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        import_data("use", tmp_path / "raw", tmp_path / "out")
    assert len(rows_of(tmp_path / "out", "use", "test")) == 6
    assert {r["meta"]["max_points"] for r in rows_of(tmp_path / "out", "use", "test")} == {10}
    for reason in ("'essay' has no key", "names options that it does not have", "several keys"):
        assert any("2 items left out" in m and reason in m for m in caplog.messages), reason


def test_use_faults_name_the_item(tmp_path: Path) -> None:
    item = {"variant": "v", **use_item(4, {"type": "text"}, {"correct": "да"}, "Что?")}
    file = lines(tmp_path / "train.jsonl", [item, {**item, "solution": {}}])
    with pytest.raises(UserError, match=r"train\.jsonl', line 2, field 'solution': needs 'correct'"):
        import_data("use", file, tmp_path / "out")
    bad = tmp_path / "variant.json"
    bad.write_text('{"items": []}')
    with pytest.raises(UserError, match=r"variant\.json' is no variant of the exam"):
        import_data("use", bad, tmp_path / "out")


def squad(contexts: list[str]) -> Row:
    """One question on the last word of each context."""
    paragraphs = []
    for number, context in enumerate(contexts):
        word = context.rstrip(".").split()[-1]
        answer = {"text": word, "answer_start": context.rindex(word)}
        qas = [{"id": f"q{number}", "question": f"Чем кончается {number}?", "answers": [answer, answer]}]
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": "Т", "paragraphs": paragraphs}]}


CONTEXTS = ["\ufeffРека впадает в Белое море.", *(f"Город номер {i} стоит на холме{i}." for i in range(6))]


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_multiq_offsets_survive_a_byte_order_mark(tmp_path: Path, form: str) -> None:
    content = squad(CONTEXTS)
    if form == "json":
        source = tmp_path / "dev.json"
        source.write_text(json.dumps(content), encoding="utf-8")
    else:
        flat = [{"context": p["context"], **p["qas"][0]} for p in content["data"][0]["paragraphs"]]
        source = lines(tmp_path / "test.jsonl", flat)
    import_data("multiq", source, tmp_path / "out")
    test, prompt = (rows_of(tmp_path / "out", "multiq", split) for split in ("test", "prompt"))
    assert (len(test), len(prompt)) == (2, 5)
    first = prompt[0]
    assert first["inputs"]["text"] == "Река впадает в Белое море."
    assert first["outputs"] == [{"label": "answer", "length": 4, "offset": 21, "segment": "море"}]  # equal golds once
    assert said(first)[-1] == "Ответ: море"
    for row in test + prompt:
        gold = row["outputs"][0]
        assert row["inputs"]["text"][gold["offset"] :][: gold["length"]] == gold["segment"]
        assert "support" not in row["messages"][0]["content"]
    assert report_on(tmp_path / "out").tasks["multiq"] is None


def test_multiq_offset_tells_equal_places_apart(tmp_path: Path) -> None:
    context = "\ufeffморе и море"
    rows = [
        {"context": context, "question": "Где?", "answers": [{"text": "море", "answer_start": context.rindex("море")}]},
        {"context": "Река.", "question": "Что?", "answers": [{"text": "Река", "answer_start": 0}]},
    ]
    import_data("multiq", lines(tmp_path / "test.jsonl", rows), tmp_path / "out", fewshot=1)
    assert rows_of(tmp_path / "out", "multiq", "prompt")[0]["outputs"][0]["offset"] == 7


def test_multiq_of_two_texts(tmp_path: Path) -> None:
    rows = [
        {
            "support_text": f"Автор {i} родился в Казани.",
            "main_text": f"В городе {i} правит Иванов.",
            "question": f"Кто правит {i}?",
            "bridge_answers": [],
            "main_answers": [{"label": "passage", "offset": 99, "length": 6, "segment": "Иванов"}],
        }
        for i in range(3)
    ]
    import_data("multiq", lines(tmp_path / "test.jsonl", rows), tmp_path / "out", fewshot=1)
    row = rows_of(tmp_path / "out", "multiq", "test")[0]
    assert "Автор 1 родился" in said(row)[0]
    assert row["outputs"][0]["offset"] == row["inputs"]["text"].index("Иванов")  # the stated place was wrong


def test_multiq_answer_that_is_not_in_the_text(tmp_path: Path) -> None:
    row = {"context": "Пусто.", "question": "Что?", "answers": [{"text": "полно", "answer_start": 0}]}
    with pytest.raises(UserError, match=r"line 1, field 'answers': the answer 'полно' is not in the text"):
        import_data("multiq", lines(tmp_path / "test.jsonl", [row]), tmp_path / "out")
    other = tmp_path / "squad.json"
    other.write_text('{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(UserError, match="is not of SQuAD's form"):
        import_data("multiq", other, tmp_path / "out")


@pytest.mark.parametrize("form", ["tsv", "jsonl"])
def test_flores_serves_both_directions(tmp_path: Path, form: str) -> None:
    pairs = [{"en": f'He said "{i}" {{twice}}.', "ru": f"Он дважды сказал «{i}»."} for i in range(8)]
    if form == "tsv":
        source = tmp_path / "test.tsv"
        source.write_text("en\tru\n" + "".join(f"{p['en']}\t{p['ru']}\n" for p in pairs), encoding="utf-8")
    else:
        source = lines(tmp_path / "test.jsonl", pairs)
    import_data("flores", source, tmp_path / "out")
    report = report_on(tmp_path / "out")
    assert report.tasks["flores_ru_en"] is report.tasks["flores_en_ru"] is None
    tasks = Catalogue().load(["flores_ru_en", "flores_en_ru"], FolderBundle(tmp_path / "out", "out"))
    doc = tasks["flores_en_ru"].docs()[0]
    question = tasks["flores_en_ru"].messages(doc)
    assert 'He said "5" {twice}.' in question[0]["content"]
    assert "английского" in question[0]["content"]
    assert question[-1] == {"role": "assistant", "content": "Перевод:"}
    example = tasks["flores_en_ru"].fewshot(doc, 1)[0]
    assert example[-1]["content"] == "Перевод: Он дважды сказал «0»."


def test_tsv_needs_a_header(tmp_path: Path) -> None:
    source = tmp_path / "test.tsv"
    source.write_text("Hello.\tПривет.\nBye.\tПока.\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test\.tsv', line 2, field 'ru': is missing"):
        import_data("flores", source, tmp_path / "out")


# -- copy -------------------------------------------------------------------------------------------------------------


def corpus(count: int, lang: str = "ru") -> list[str]:
    """Paragraphs of 63 words in 7 sentences, all different."""
    if lang == "ru":
        return [
            " ".join(f"Запись {i} пункт {j} гласит что вода была холодной." for j in range(7)) for i in range(count)
        ]
    return [" ".join(f"Entry {i} item {j} says the water was cold." for j in range(7)) for i in range(count)]


def test_copy_rows_are_whole_different_sentences_and_paragraphs(tmp_path: Path) -> None:
    texts = corpus(12)
    (tmp_path / "raw").mkdir()
    with gzip.open(tmp_path / "raw" / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        for text in texts + texts[:3]:  # three of them twice
            file.write(json.dumps({"text": f"Глава.\n{text}\nкусок без начала и без конца"}) + "\n")
    import_data("copy", tmp_path / "raw", tmp_path / "out", rows=4)
    sentences = {s for text in texts for s in sentences_of(text)}
    for dataset, allowed in (("cp_sent_ru", sentences), ("cp_para_ru", set(texts))):
        test, prompt = (rows_of(tmp_path / "out", dataset, split) for split in ("test", "prompt"))
        assert (len(test), len(prompt)) == (4, 5)
        chosen = [r["inputs"]["text"] for r in test + prompt]
        assert len(set(chosen)) == 9
        assert set(chosen) <= allowed
        assert all(r["outputs"] == r["inputs"]["text"] for r in test + prompt)
        assert all(r["messages"][-1]["role"] == "user" for r in test)
        assert [said(r)[-1] for r in prompt] == [r["outputs"] for r in prompt]
    report = report_on(tmp_path / "out")
    assert report.tasks["cp_sent_ru"] is report.tasks["cp_para_ru"] is None


def test_copy_is_a_seeded_choice(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join(corpus(30)), encoding="utf-8")
    chosen = []
    for number, seed in enumerate((1, 1, 2)):
        import_data("copy", source, tmp_path / str(number), rows=5, seed=seed)
        chosen.append((tmp_path / str(number) / "cp_sent_ru" / "test.jsonl").read_bytes())
    assert chosen[0] == chosen[1] != chosen[2]


def test_copy_of_other_languages_is_instructed_in_english(tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("\n".join(corpus(12, "en")), encoding="utf-8")
    import_data("copy", source, tmp_path / "out", lang="kk", rows=3)
    row = rows_of(tmp_path / "out", "cp_sent_kk", "test")[0]
    assert said(row)[0].isascii()
    report = check_folder(tmp_path / "out", Catalogue())
    assert report.unused == ("cp_para_kk", "cp_sent_kk")  # they need a task of their own


def test_copy_without_paragraphs_makes_sentences_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"text": f"Вот предложение номер {i}, в нём ровно восемь слов."} for i in range(10)]
    with caplog.at_level(logging.WARNING):
        written = import_data("copy", lines(tmp_path / "s.jsonl", rows), tmp_path / "out", rows=100)
    assert {file.parent.name for file in written} == {"cp_sent_ru"}
    assert any("0 paragraphs" in message for message in caplog.messages)
    assert any("10 sentences of 8 to 40 words instead of 105" in message for message in caplog.messages)
    with pytest.raises(UserError, match="too few texts to copy"):
        import_data("copy", lines(tmp_path / "t.jsonl", rows[:5]), tmp_path / "out2")


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("Это А. П. Чехов. Он врач.", ["Это А. П. Чехов.", "Он врач."]),
        ("Дом стоит на ул. Мира. Он стар.", ["Дом стоит на ул. Мира.", "Он стар."]),
        ("— Да! — сказал он. — Иду.", ["— Да! — сказал он.", "— Иду."]),
        ("«Где ты?» Молчание… А потом: «Тут!»", ["«Где ты?»", "Молчание…", "А потом: «Тут!»"]),
        ("Mr. Smith paid 3.5 dollars. Why?", ["Mr. Smith paid 3.5 dollars.", "Why?"]),
    ],
)
def test_sentences(paragraph: str, sentences: list[str]) -> None:
    assert sentences_of(paragraph) == sentences


def test_paragraphs_of_wrapped_lines_and_of_single_lines() -> None:
    assert paragraphs_of("один\r\nдва\r\n\r\nтри\r\n") == ["один два", "три"]
    assert paragraphs_of("\ufeffодин\n  два   три\n") == ["один", "два три"]


@pytest.mark.parametrize(
    "bad",
    [
        "это предложение начинается со строчной буквы и потому взято из середины.",
        "Это предложение не кончается точкой и потому взято не до конца",
        "Это предложение (со скобкой открывает больше, чем оно закрывает в конце.",
        "Это предложение хранит остаток разметки &nbsp; и потому не годится для копий.",
    ],
)
def test_fragments_are_not_copied(tmp_path: Path, bad: str) -> None:
    good = [f"Вот предложение номер {i}, в нём ровно восемь слов." for i in range(8)]
    import_data("copy", lines(tmp_path / "s.jsonl", [{"text": t} for t in [bad, *good]]), tmp_path / "out", fewshot=2)
    rows = rows_of(tmp_path / "out", "cp_sent_ru", "test") + rows_of(tmp_path / "out", "cp_sent_ru", "prompt")
    assert {r["outputs"] for r in rows} == set(good)


# -- the same for all kinds -------------------------------------------------------------------------------------------


def test_unknown_kind_and_missing_source(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"Unknown kind of data 'rucolla'\. Did you mean 'rucola'\? Available: copy, flores"
    ):
        import_data("rucolla", tmp_path, tmp_path / "out")
    with pytest.raises(UserError, match="nowhere' does not exist"):
        import_data("rucola", tmp_path / "nowhere", tmp_path / "out")
    for kind in kinds():
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        with pytest.raises(UserError, match="has no file"):
            import_data(kind, empty, tmp_path / "out")


@pytest.mark.parametrize("lang", ["../x", "RU", "russian", ""])
def test_a_language_is_never_a_path(tmp_path: Path, lang: str) -> None:
    with pytest.raises(UserError, match="is no code of two or three small letters"):
        import_data("copy", tmp_path, tmp_path / "out", lang=lang)


def test_other_rows_are_never_overwritten(tmp_path: Path) -> None:
    file = lines(tmp_path / "val.jsonl", [parus(i) for i in range(8)])
    first = import_data("parus", file, tmp_path / "out")
    before = {f: f.read_bytes() for f in first}
    assert import_data("parus", file, tmp_path / "out") == first  # the same again is no conflict
    lines(file, [parus(i) for i in range(9)])
    with pytest.raises(UserError, match=r"parus/test\.jsonl' is there already and holds other rows"):
        import_data("parus", file, tmp_path / "out")
    assert {f: f.read_bytes() for f in first} == before


def test_broken_json_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "val.jsonl"
    file.write_text(json.dumps(parus(0)) + "\n{broken\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"val\.jsonl', line 2: not valid JSON"):
        import_data("parus", file, tmp_path / "out")
    lines(file, [parus(0), parus(1, label=2)])
    with pytest.raises(UserError, match=r"line 2, field 'label': must be one of 0, 1, this is '2'"):
        import_data("parus", file, tmp_path / "out")
    lines(file, [parus(0), {k: v for k, v in parus(1).items() if k != "choice2"}])
    with pytest.raises(UserError, match=r"line 2, field 'choice2': is missing"):
        import_data("parus", file, tmp_path / "out")


# -- the real data ----------------------------------------------------------------------------------------------------

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no real data sets: they lie beside the checkout, or where DARUMERU_SHARED says"
)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the real data sets."""
    output = tmp_path_factory.mktemp("real")
    sources = {
        "rucola": "rucola",
        "mmlu": "mmlu_en",
        "parus": "parus",
        "rwsd": "rwsd",
        "use": "use",
        "multiq": "xquad_ru",
        "flores": "ntrex_ruen",
    }
    for kind, folder in sources.items():
        import_data(kind, SHARED / folder, output)
    import_data("copy", SHARED / "corpus" / "ru" / "ruslit_publicism.jsonl", output, rows=100)
    import_data("copy", SHARED / "corpus" / "en" / "xquad_paragraphs.jsonl", output, lang="en", rows=50)
    return output


@needs_shared
def test_real_data_counts_and_no_faults(real: Path) -> None:
    report = report_on(real)
    assert report.datasets == {
        "rucola": {"validation": 737 + 1353, "train": 5901},
        "mmlu_nlpcoreteam": {"test": 1281, "dev": 285},
        "parus": {"test": 70, "prompt": 5},
        "rwsd": {"test": 157, "prompt": 5},
        "use": {"test": 74 * 26 - 6, "prompt": 5},
        "multiq": {"test": 890, "prompt": 5},
        "flores": {"test": 1496, "prompt": 5},
        "cp_sent_ru": {"test": 100, "prompt": 5},
        "cp_para_ru": {"test": 100, "prompt": 5},
        "cp_sent_en": {"test": 50, "prompt": 5},
        "cp_para_en": {"test": 50, "prompt": 5},
    }
    assert set(report.ready("darumeru")) == {
        *("rucola", "mmlu_en", "parus", "rwsd", "use", "multiq"),
        *("cp_sent_ru", "cp_para_ru", "cp_sent_en", "cp_para_en"),
    }
    assert set(report.ready("darumeru-extended")) == {"flores_ru_en", "flores_en_ru"}


@needs_shared
def test_real_rows_hold_what_the_raw_rows_say(real: Path) -> None:
    assert Counter(r["label"] for r in rows_of(real, "rucola", "validation")) == _labels("rucola", "*_dev")
    assert len({r["subject"] for r in rows_of(real, "mmlu_nlpcoreteam", "test")}) == 57
    first = rows_of(real, "mmlu_nlpcoreteam", "dev")[0]
    assert first["question_en"] == "Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field."
    assert (first["choices_en"], first["answer"]) == (["0", "1", "2", "3"], 1)
    fried = rows_of(real, "parus", "prompt")[0]
    assert (fried["inputs"]["choice2"], fried["outputs"]) == ("Повар поджарил её.", "2")
    assert Counter(r["outputs"] for r in rows_of(real, "rwsd", "test")) == {
        {True: "Да", False: "Нет"}[label]: n for label, n in _labels("rwsd", "val", "label").items()
    }
    use = rows_of(real, "use", "test")
    points: Counter[str] = Counter()
    for row in use:
        points[row["meta"]["variant"]] += row["meta"]["score"]
    assert {row["meta"]["variant"]: row["meta"]["max_points"] for row in use} == points
    assert Counter(points.values()) == {34: 68, 33: 6}
    twelfth = next(r for r in use if r["meta"]["variant"] == "task_104" and r["meta"]["id_task"] == "4")
    assert twelfth["outputs"] == "закупорить"
    for row in rows_of(real, "multiq", "test"):
        assert "\ufeff" not in row["inputs"]["text"]
        for gold in row["outputs"]:
            assert row["inputs"]["text"][gold["offset"] :][: gold["length"]] == gold["segment"]
    assert rows_of(real, "flores", "test")[0]["meta"]["line"] == 6


def _labels(folder: str, stem: str, name: str = "acceptable") -> Counter[Any]:
    return Counter(row[name] for file in (SHARED / folder).glob(f"{stem}.jsonl") for row in read_rows(file))


@needs_shared
def test_real_copies_are_in_the_corpus(real: Path) -> None:
    corpus_text = " ".join(
        " ".join(row["text"].split()) for row in read_rows(SHARED / "corpus" / "ru" / "ruslit_publicism.jsonl")
    )
    sentences = rows_of(real, "cp_sent_ru", "test")
    assert all(r["outputs"] in corpus_text for r in sentences)
    assert all(8 <= len(r["outputs"].split()) <= 40 for r in sentences)
    assert all(60 <= len(r["outputs"].split()) <= 200 for r in rows_of(real, "cp_para_ru", "test"))
