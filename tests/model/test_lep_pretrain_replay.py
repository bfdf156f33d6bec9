"""Replay: a share of the rows of every step comes from other texts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from darumeru.errors import UserError
from lep.pipeline import load_recipe
from lep.pipeline.recipe import SHIPPED
from lep.pipeline.steps import steps_of
from lep.pretraining.data import Texts
from lep.pretraining.job import pretrain
from lep.pretraining.settings import settings_of
from support.lep_models import ENGLISH, RUSSIAN
from support.pretraining import documents, interrupt, losses, make_base, small


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts))
    return path


@pytest.fixture
def base(make_model: Callable[..., Path]) -> Path:
    return make_base(make_model, "llama-tied")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", documents())


@pytest.fixture
def english(tmp_path: Path) -> Path:
    return write(tmp_path / "en.jsonl", [f"english {text}" for text in ENGLISH * 2])


@pytest.fixture
def code(tmp_path: Path) -> Path:
    return write(tmp_path / "code.jsonl", [f"code {number}" for number in range(9)])


def kinds(base: Path, corpus: Path, folder: Path, count: int, **changes: Any) -> list[list[str]]:
    """The text that each row of each step comes from."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    settings = small(packing=False, **changes)
    rows = Texts([corpus], tokenizer, settings).open(folder).rows
    assert len(rows) == count
    texts = [tokenizer.decode(rows[i]["blocks"][0], skip_special_tokens=True) for i in range(count)]
    named = ["en" if t.startswith("english") else "code" if t.startswith("code") else "corpus" for t in texts]
    size = settings.total_batch_size
    return [named[start : start + size] for start in range(0, count, size)]


def test_every_step_has_its_share(base: Path, corpus: Path, english: Path, code: Path, tmp_path: Path) -> None:
    half = kinds(
        base, corpus, tmp_path / "a", 160, max_steps=20, total_batch_size=8, replay=(f"{english}=0.25", f"{code}=0.125")
    )
    assert all((step.count("en"), step.count("code"), step.count("corpus")) == (2, 1, 5) for step in half)
    uneven = kinds(base, corpus, tmp_path / "b", 400, max_steps=100, replay=(f"{english}=0.3", f"{code}=0.05"))
    assert {step.count("en") for step in uneven} == {1, 2}
    assert {step.count("code") for step in uneven} == {0, 1}
    assert sum(step.count("en") for step in uneven) == pytest.approx(120, abs=2)
    assert sum(step.count("code") for step in uneven) == pytest.approx(20, abs=2)


def test_each_text_is_walked_on_its_own_and_repeated(base: Path, corpus: Path, code: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = Texts([corpus], tokenizer, small(packing=False, max_steps=18, replay=(f"{code}=0.5",)))
    rows = texts.open(tmp_path / "b").rows
    found = [tokenizer.decode(rows[i]["blocks"][0], skip_special_tokens=True) for i in range(len(rows))]
    replayed = [text for text in found if text.startswith("code")]
    assert len(replayed) == 36
    passes = [replayed[start : start + 9] for start in range(0, 36, 9)]
    assert all(sorted(one) == [f"code {number}" for number in range(9)] for one in passes)
    assert passes[0] != passes[1], "anew shuffled"
    again = texts.open(tmp_path / "b").rows
    assert [again[i]["row"] for i in reversed(range(72))] == [rows[i]["row"] for i in reversed(range(72))]
    assert len({item["row"] for item in map(again.__getitem__, range(72))}) == len(set(found)), (
        "numbers are of one text only"
    )


def test_the_corpus_is_read_as_often_as_without(base: Path, corpus: Path, english: Path, tmp_path: Path) -> None:
    plain = pretrain(base, [corpus], tmp_path / "plain", settings=small(max_steps=-1, packing=False))["measures"]
    manifest = pretrain(
        base, [corpus], tmp_path / "out", settings=small(max_steps=-1, packing=False, replay=(f"{english}=0.25",))
    )
    measures = manifest["measures"]
    assert measures["blocks"] == plain["blocks"]
    assert measures["steps"] == pytest.approx(plain["steps"] / 0.75, abs=1)
    (replay,) = measures["replay"]
    assert replay["text"] == "en.jsonl=0.25"
    rows = plain["blocks"]["blocks"]
    assert replay["passes"] == pytest.approx(rows / 3 / 6, rel=0.05)
    assert manifest["settings"]["replay"] == ["en.jsonl=0.25"]
    assert "replay" not in plain


def test_an_interrupted_training_replays_what_it_would_have(
    base: Path, corpus: Path, english: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(max_steps=9, replay=(f"{english}=0.3",))
    pretrain(base, [corpus], tmp_path / "whole", settings=settings)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="interrupted"):
        interrupt(patch, 5)
        pretrain(base, [corpus], tmp_path / "parts", settings=settings)
    with pytest.raises(UserError, match=r"replay \['en.jsonl=0.3'\] there, None now"):
        pretrain(base, [corpus], tmp_path / "parts", settings=small(max_steps=9))
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "en.jsonl", RUSSIAN)
    with pytest.raises(UserError, match="another replay"):
        pretrain(base, [corpus], tmp_path / "parts", settings=small(max_steps=9, replay=(f"{other}=0.3",)))
    pretrain(base, [corpus], tmp_path / "parts", settings=settings)
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-6)


def test_a_language_without_replay_is_warned_about(base: Path, english: Path, tmp_path: Path) -> None:
    russian = write(tmp_path / "ru.jsonl", RUSSIAN * 5)
    held_out = [f"news={russian}", f"prose={english}"]

    def said(name: str, **changes: Any) -> str:
        lines: list[str] = []
        pretrain(
            base, [russian], tmp_path / name, held_out=held_out, warn=lines.append,
            settings=small(max_steps=1, warmup_steps=0, **changes),
        )  # fmt: skip
        return " ".join(lines)

    assert "prose is in Latin script, and nothing like it is replayed" in said("a")
    assert said("b", train="new-rows") == ""  # old rows stay as they are
    assert said("c", replay=(f"{english}=0.25",)) == ""


def test_bad_shares_are_one_sentence() -> None:
    for wrong in ("en.jsonl", "en.jsonl=", "en.jsonl=25%", "en.jsonl=1.5", "en.jsonl=0.0", "=0.25"):
        with pytest.raises(UserError, match="FILE=SHARE"):
            settings_of(replay=(wrong,))
    with pytest.raises(UserError, match=r"at most 0\.95"):
        settings_of(replay=("a.txt=0.5", "b.txt=0.5"))


def test_a_recipe_replays_texts_beside_it(english: Path, tmp_path: Path) -> None:
    """A path in a recipe is relative to it; another text of that name is another step."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text((SHIPPED / "smollm2-pair-ru.yaml").read_text())
    keys = []
    for texts in (ENGLISH, ENGLISH[:1]):
        write(english, texts)
        changed = recipe.read_text().replace("pretrain:\n", "pretrain:\n  replay: [en.jsonl=0.25]\n", 1)
        (tmp_path / "s.yaml").write_text(changed)
        steps = {step.name: step for step in steps_of(load_recipe(tmp_path / "s.yaml", ["name=x"]), tmp_path / "out")}
        keys.append(steps["pretrain"].key)
    assert keys[0] != keys[1]
