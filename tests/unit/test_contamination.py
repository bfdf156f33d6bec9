"""Benchmark documents in training texts: all that stand there are found and no others, however they are typed."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darumeru.contamination.runs import RunIndex, overlapping
from support.commands import call
from support.synthetic import edited

ROOT = Path(__file__).parents[2]
MINI = ROOT / "darumeru" / "data" / "mini"
RECORD = ROOT / "leaderboards" / "runs" / "smollm2-135m-instruct-mini"


def rows(dataset: str, split: str = "test") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MINI / dataset / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def save(path: Path, texts: list[str]) -> Path:
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.suffix == ".zst":
        path.write_bytes(pytest.importorskip("zstandard").compress(lines.encode()))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table({"text": texts}), path)
    else:
        path.write_text(lines, encoding="utf-8")
    return path


# -- runs of words ------------------------------------------------------------------------------------------------------


def plain_runs(text: str, length: int) -> Iterator[tuple[str, ...]]:
    """The runs of a text of plain words, the simple way."""
    words = re.findall(r"[a-z0-9]+", text)
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def test_exactly_the_common_runs_are_found() -> None:
    rng = random.Random(0)

    def made() -> str:
        return " ".join(rng.choice(["a", "b", "cc", "d1", "e"]) + rng.choice(["", ",", "\n"]) for _ in range(60))

    documents, corpus = [made() for _ in range(20)], [made() for _ in range(200)]
    index = RunIndex(enumerate(documents), words=6)
    found = index.find(corpus)
    known = [set(plain_runs(document, 6)) for document in documents]
    anyone = set().union(*known)
    expected = [(n, run) for n, text in enumerate(corpus) for run in plain_runs(text, 6) if run in anyone]
    assert len(expected) > 100
    assert [(t, tuple(index.words_of(r).split())) for t, r in zip(found.text, found.run, strict=True)] == expected
    which, owner = index.owners(found.run)
    owners = {(tuple(index.words_of(found.run[w]).split()), o) for w, o in zip(which, owner, strict=True)}
    assert owners == {(run, o) for _, run in expected for o, runs in enumerate(known) if run in runs}
    assert index.counts(20).tolist() == list(map(len, known))


RUSSIAN = "Ёлка стоит в углу, а её шишки, жёлтые и золотые, блестят: это — мой тихий праздник"
WRITTEN = [
    RUSSIAN.upper(),
    RUSSIAN.replace("ё", "е").replace("Ё", "Е"),
    RUSSIAN.replace("й", "и\u0306").replace("ё", "е\u0308"),  # decomposed
    RUSSIAN.replace("стоит", "сто\u0301ит").replace("праздник", "пра\u00adздник"),  # a stress mark, a soft hyphen
    re.sub(r"[,:—]", "", RUSSIAN).replace(" ", " \n* "),
    "Ну вот.😀" + RUSSIAN.replace(" а ", "\u00a0а\u00a0") + "!",
    "\u200b" + RUSSIAN.replace("шишки", "«шишки»"),
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_text_is_its_words_however_it_is_typed(written: str) -> None:
    assert overlapping([RUSSIAN], [written], 14) == {0}
    assert overlapping([RUSSIAN], [written.replace("углу", "сенях").replace("УГЛУ", "СЕНЯХ")], 14) == set()


def test_no_run_goes_over_the_end_of_a_text() -> None:
    index = RunIndex([(0, "один два три"), (0, "четыре пять")], words=4)
    assert len(index) == 0
    assert not index.touches("один два три четыре пять")
    assert RunIndex([], 4).find(["один два три четыре", ""]).run.tolist() == []
    whole = RunIndex([(0, "один два три четыре")], words=4)
    assert whole.find(["ноль один два", "три четыре"]).run.tolist() == []
    assert whole.find(["один два \ud83d три четыре один"]).text.tolist() == [0]  # half a character


def test_words_of_many_documents_are_nobodys_own() -> None:
    instruction = "ответь одной буквой"
    documents = [f"{instruction} {word}" for word in ("раз", "два", "три")]
    index = RunIndex(enumerate(documents), words=3, most=2)
    assert not index.touches(instruction)
    assert index.touches("одной буквой два")
    assert index.counts(3).tolist() == [1, 1, 1]


# -- the command --------------------------------------------------------------------------------------------------------

PLANTED = {"cp_sent_ru": [0, 3, 23], "sum_extractive": [2], "sum_abstractive": [2], "rcb": [4]}
NOTHING = (
    "Над городом висела серая пелена дождя, и редкие прохожие спешили по домам. Никто не оглядывался, все молчали."
)


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Four files in which documents of three data sets stand; the article is cut in the middle."""
    sentences = [rows("cp_sent_ru")[i]["outputs"] for i in PLANTED["cp_sent_ru"]]
    article = " ".join(rows("daru_treeway_eval")[2]["src_sents"])
    premise = rows("rcb")[4]["inputs"]["premise"]
    return [
        save(tmp_path / "a.jsonl", [NOTHING, f"Из газет.\n{sentences[0].upper()}", NOTHING]),
        save(tmp_path / "b.jsonl.gz", [NOTHING, article[: len(article) // 2]]),
        save(tmp_path / "c.jsonl.zst", [f"{NOTHING} {premise.replace('ё', 'е')} {NOTHING}"]),
        save(tmp_path / "d.parquet", [NOTHING] * 5 + [sentences[1] + " " + sentences[2], sentences[1]]),
    ]


def test_all_that_was_planted_is_found_and_nothing_else(corpus: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    said = call("contaminated", "--corpus", *corpus, "--data", "mini", "--output", output)
    found = json.loads(output.read_text())
    assert {name: [f["id"] for f in t["found"]] for name, t in found["tasks"].items() if t["found"]} == PLANTED
    assert (found["texts"], found["affected"]) == (13, 5)
    sentence = found["tasks"]["cp_sent_ru"]["found"]
    assert [(f["share"], f["texts"], f["source"], f["text"]) for f in sentence] == [
        (1.0, 1, "a.jsonl", 2), (1.0, 2, "d.parquet", 6), (1.0, 1, "d.parquet", 6),
    ]  # fmt: skip
    assert 0 < found["tasks"]["rcb"]["found"][0]["share"] <= 1
    assert found["tasks"]["parus"] == {"documents": 28, "searched": 0, "found": []}
    assert "b.jsonl.gz" in said
    part = json.loads(call("contaminated", "--corpus", corpus[0], "--data", "mini", "--tasks", "cp_sent_ru", "--json"))
    assert list(part["tasks"]) == ["cp_sent_ru"]


def test_a_part_of_a_document_is_told_as_its_share(tmp_path: Path) -> None:
    text = rows("cp_para_ru")[1]["outputs"]
    half = save(tmp_path / "half.jsonl", [" ".join(text.split()[: len(text.split()) // 2])])
    args = ["contaminated", "--corpus", half, "--data", "mini", "--tasks", "cp_para_ru", "--json"]
    (found,) = json.loads(call(*args))["tasks"]["cp_para_ru"]["found"]
    assert (found["id"], found["texts"]) == (1, 1)
    assert 0.2 < found["share"] < 0.5
    assert json.loads(call(*args, "--min-share", 0.5))["tasks"]["cp_para_ru"]["found"] == []


def test_scores_with_and_without(corpus: list[Path]) -> None:
    found = json.loads(call("contaminated", "--corpus", *corpus, "--data", "mini", "--run", RECORD, "--json"))
    (run,) = found["runs"]
    recorded = json.loads((RECORD / "scores.json").read_text())
    lines = {line["name"]: line for line in run["lines"]}
    assert list(lines) == ["rcb", "sum_abstractive", "sum_extractive", "cp_sent_ru", "suite"]
    means = []
    for name, task in recorded["tasks"].items():
        samples = [json.loads(line) for line in (RECORD / "samples" / f"{name}.jsonl").read_text().splitlines()]
        left = [s for s in samples if s["id"] not in PLANTED.get(name, [])]
        if name not in lines:
            means.append(task["score"]["value"])
            continue
        line = lines[name]
        assert line["all"] == pytest.approx(task["score"]), name
        assert line["without"] == len(PLANTED[name])
        if task["primary"] != ["acc", "f1_macro"]:
            expected = np.mean([[s["score"][m] for m in task["primary"]] for s in left])
            assert line["clean"]["value"] == pytest.approx(expected), name
        d = line["difference"]
        assert d["value"] == pytest.approx(line["clean"]["value"] - line["all"]["value"])
        # A paired difference of few documents is known far better than the scores themselves.
        assert d["low"] <= d["value"] <= d["high"]
        assert d["high"] - d["low"] < 0.5 * (line["clean"]["high"] - line["clean"]["low"])
        means.append(line["clean"]["value"])
    assert lines["suite"]["all"]["value"] == pytest.approx(recorded["suite"]["value"])
    assert lines["suite"]["clean"]["value"] == pytest.approx(np.mean(means))
    assert lines["suite"]["documents"] == sum(t["documents"] for t in recorded["tasks"].values())


def test_of_an_exam_no_part_is_left(tmp_path: Path) -> None:
    """The grade of a variant is the sum of its tasks' points: without one of them it is worth nothing."""
    variant = rows("use")[0]["meta"]["variant"]
    size = sum(row["meta"]["variant"] == variant for row in rows("use"))
    path = save(tmp_path / "use.jsonl", [rows("use")[0]["inputs"]["text"]])
    found = json.loads(
        call("contaminated", "--corpus", path, "--data", "mini", "--tasks", "use", "--run", RECORD, "--json")
    )
    (line,) = found["runs"][0]["lines"]
    assert line["without"] >= size > len(found["tasks"]["use"]["found"])


def test_a_task_without_a_clean_document_has_no_score(tmp_path: Path) -> None:
    path = save(
        tmp_path / "all.jsonl", [row["inputs"]["premise"] + " " + row["inputs"]["hypothesis"] for row in rows("rcb")]
    )
    found = json.loads(
        call("contaminated", "--corpus", path, "--data", "mini", "--words", 5, "--run", RECORD, "--json")
    )
    assert len(found["tasks"]["rcb"]["found"]) == 27
    assert any("rcb: all of its documents" in remark for remark in found["runs"][0]["remarks"])
    assert "suite" not in {line["name"] for line in found["runs"][0]["lines"]}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--corpus", "none.txt"], "no text file none.txt"),
        (["--corpus", "{tmp}/empty.txt"], "There is no text in"),
        (["--corpus", "{tmp}/x.pdf"], "unknown ending"),
        (["--corpus", "{tmp}/a.jsonl", "--field", "body"], "no text field 'body' .it has: text"),
        (["--corpus", "{tmp}/a.jsonl", "--suite", "darumero"], "Unknown suite 'darumero'. Did you mean 'darumeru'"),
        (["--corpus", "{tmp}/a.jsonl", "--words", "2"], "--words: 2 is not possible"),
        (["--corpus", "{tmp}/a.jsonl", "--min-share", "50"], "--min-share: 50.0 is not possible"),
        (["--corpus", "{tmp}/a.jsonl", "--run", "{tmp}"], "holds no run"),
        (["--corpus", "{tmp}/a.jsonl", "--run", "{tmp}/other"], "asked other documents of 'rcb' than were searched"),
        ([], "--corpus"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(tmp_path: Path, args: list[str], message: str) -> None:
    save(tmp_path / "a.jsonl", [NOTHING])
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "x.pdf").write_text("x")
    other = shutil.copytree(RECORD, tmp_path / "other")
    edited(other, "header.json", lambda h: h["tasks"]["rcb"]["data"]["test"].update(sha256="0" * 64))
    output = tmp_path / "found.json"
    given = [arg.replace("{tmp}", str(tmp_path)) for arg in args]
    said = call("contaminated", *given, "--data", "mini", "--output", output, code=2)
    assert re.search(message, " ".join(said.split())), said
    assert not output.exists()
