"""An arena of models that think: thoughts stand beside the answers, unfinished ones are counted, a judge may think too."""

import json
from pathlib import Path

import pytest

from darumeru.arena.player import Player
from darumeru.requests import Answer, Request
from support.arena import Faked, House, hold, oracle, write
from support.thinking_server import thinking_tokenizer
from support.tiny import make_model


@pytest.fixture(scope="module")
def models(tiny_chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models whose chat template can switch thinking."""
    folder = tmp_path_factory.mktemp("arena-thinkers")
    for seed, name in enumerate(("best", "poor", "judge")):
        make_model(folder / name, chat=True, seed=seed)
        thinking_tokenizer(tiny_chat, folder / name)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"Вопрос {n}?\n" for n in range(4)), encoding="utf-8")
    return file


def think(player: Player, request: Request) -> Answer:
    """A thought to every prompt but the first ends."""
    if not request.id.endswith("#thought"):
        return write(player, request)
    if request.id == "prompt/0#thought":
        return Answer(request.id, tokens=(300, 301), finish="length")
    assert request.stop is not None
    return Answer(request.id, tokens=(300, 301, request.stop), finish="stop")


def judge(player: Player, request: Request) -> Answer:
    """A judge that thinks, and has not come to an end where poor's answer stands second."""
    if not request.id.endswith("#thought"):
        return oracle(player, Request(request.id, request.kind, (), player.opened.tokenizer.decode(request.prompt)))
    assert request.stop is not None
    cut = "Ответ poor" in request.text.partition("<ответ_2>")[2] and "Вопрос 3" in request.text
    return Answer(request.id, tokens=(300,) if cut else (300, request.stop), finish="stop")


class Thinkers(House):
    """Engines with a tokenizer, which thoughts need."""

    def __call__(self, player: Player, max_len: int) -> Faked:
        engine = super().__call__(player, max_len)
        assert isinstance(engine, Faked)
        engine.tokenizer = player.opened.tokenizer
        return engine


def test_thoughts_are_kept_beside_the_answers_and_unfinished_ones_counted(
    models: Path, prompts: Path, tmp_path: Path
) -> None:
    house = Thinkers(writer=think)
    arena = hold(models, prompts, tmp_path / "out", house, thinking="on", thinking_budget=64)
    answers = list(arena.answers("best"))
    assert [(a["text"], a["thought_tokens"], a["unfinished"]) for a in answers[:2]] == [
        ("", 2, True), ("Ответ best, качество 90.", 3, False),
    ]  # fmt: skip
    facts = arena.scores["models"][0]["answers"]
    assert (facts["unfinished_thoughts"], facts["thought_tokens_mean"]) == (1, 2.75)
    assert any("1 of 4 thoughts did not end (--thinking-budget)" in remark for remark in arena.scores["remarks"])
    assert [model["thinking"]["budget"] for model in arena.header["models"]] == [64, 64]
    assert arena.header["judge"]["thinking"]["mode"] == "off"
    assert "<details" in (arena.path / "index.html").read_text()
    # With thinking off it is another arena, with other answers.
    off = hold(models, prompts, tmp_path / "out", Thinkers())
    assert off.path != arena.path
    assert all("thought" not in answer for answer in off.answers("best"))


def test_a_judge_may_think_and_a_thought_without_end_is_no_verdict(models: Path, prompts: Path, tmp_path: Path) -> None:
    arena = hold(
        models, prompts, tmp_path / "out", Thinkers(judge=judge), judge_thinking="on", judge_thinking_budget=32
    )
    verdicts = list(arena.verdicts())
    assert [v["reason"] for v in verdicts] == ["agreed"] * 3 + ["unjudged"]
    assert verdicts[3]["why"] == "the judge's thought did not end"
    assert json.loads((arena.path / "header.json").read_text())["judge"]["thinking"]["budget"] == 32
