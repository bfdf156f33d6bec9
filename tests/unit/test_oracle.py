"""What a perfect, a constant and a spoiled model score: the whole way from bundle to suite."""

from pathlib import Path

import pytest

from darumeru.evaluation import execute, prepare, settings_of
from support.tiny import KnowingEngine

CHANCE = {
    "rummlu": 0.25,
    "mmlu_ru": 0.25,
    "mmlu_en": 0.25,
    "ruopenbookqa": 0.25,
    "ruworldtree": 0.25,
    "rcb": 0.33,
    "rwsd": 0.5,
}


@pytest.mark.parametrize("suite", ["darumeru", "darumeru-extended"])
def test_oracle_scores_one_on_every_task(suite: str, tiny_chat: Path, tmp_path: Path) -> None:
    plan = prepare(settings_of(model=str(tiny_chat), data="mini", suite=suite))
    scores = execute(plan, tmp_path, open_engine=KnowingEngine).scores
    assert {t: r["score"]["value"] for t, r in scores["tasks"].items()} == dict.fromkeys(plan.suite.tasks, 1.0)
    assert scores["suite"]["value"] == 1.0
    # 28 of 28 right is no certainty.
    assert all(0.5 < r["score"]["low"] < 1.0 for r in scores["tasks"].values() if r["units"] > 5)
    assert len(scores["tasks"]) == {"darumeru": 17, "darumeru-extended": 6}[suite]


def test_constant_engine_scores_about_chance(tiny_chat: Path, tmp_path: Path) -> None:
    plan = prepare(settings_of(model=str(tiny_chat), data="mini"))
    scores = execute(plan, tmp_path, open_engine=lambda p: KnowingEngine(p, constant=True)).scores
    for task, chance in CHANCE.items():
        assert scores["tasks"][task]["metrics"]["acc"]["value"] == pytest.approx(chance, abs=0.06), task
    # Both orders of a pair cannot be won with one answer; an uninformative choice has no correlation.
    assert scores["tasks"]["parus"]["score"]["value"] == 0.0
    assert scores["tasks"]["rucola"]["metrics"]["mcc"]["value"] == 0.0
    for task in ("multiq", "use", "sum_abstractive", "cp_para_ru", "cp_para_en"):
        assert scores["tasks"][task]["score"]["value"] < 0.05, task


def test_spoiled_oracle_lies_between(tiny_chat: Path, tmp_path: Path) -> None:
    plan = prepare(settings_of(model=str(tiny_chat), data="mini"))
    scores = execute(plan, tmp_path, open_engine=lambda p: KnowingEngine(p, spoil=0.3)).scores
    for task, result in scores["tasks"].items():
        assert 0.2 < result["score"]["value"] < 1.0, task
        assert result["score"]["low"] < result["score"]["value"] < result["score"]["high"], task
    assert 0.5 < scores["suite"]["value"] < 0.85
    # The mean of 17 tasks is known better than one task.
    width = scores["suite"]["high"] - scores["suite"]["low"]
    assert width < min(
        r["score"]["high"] - r["score"]["low"] for t, r in scores["tasks"].items() if t.startswith("mmlu")
    )
