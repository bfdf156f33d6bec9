"""A recipe without an instruct variant: the model itself is adapted, with chats among its texts, beside a control."""

import json
from pathlib import Path

import pytest
import yaml

from lep.pipeline import estimate, load_recipe, plan, run_recipe
from support.pipeline import RECIPE, make_inputs, todo, write_recipe

pytestmark = pytest.mark.xdist_group("direct")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("direct"))
    write_recipe(
        folder,
        pretrain={**RECIPE["pretrain"], "train": "new-rows+lora", "control": True, "replay": ["held-en.jsonl=0.25"]},
        chats={"prompts": ["prompts.jsonl"], "answers": True, "limit": 8, "copy": 4, "copy_corpus": ["copy.jsonl"],
               "copy_characters": [50, 900], "share": 0.25},
        evaluate={**RECIPE["evaluate"], "models": ["base", "control", "base-new", "calibrated"]},
    )  # fmt: skip
    file = folder / "recipe.yaml"
    recipe = yaml.safe_load(file.read_text())
    del recipe["instruct"], recipe["propagate"]
    file.write_text(yaml.safe_dump(recipe, allow_unicode=True))
    return folder


@pytest.fixture(scope="module")
def study(inputs: Path) -> Path:
    said: list[str] = []
    run_recipe(load_recipe(inputs / "recipe.yaml"), inputs / "out", say=said.append)
    assert [line.split(" ")[0] for line in said] == [
        "vocab", "init", "chats-data", "pretrain", "control", "calibrate-data", "calibrate", "run-base", "text-base",
        "run-control", "text-control", "run-base-new", "text-base-new", "run-calibrated", "text-calibrated", "chats", "speed",
        "examples", "report",
    ]  # fmt: skip
    return inputs / "out"


def test_the_original_is_what_everything_is_held_against(study: Path) -> None:
    report = json.loads((study / "report" / "report.json").read_text())
    assert [(m["id"], m["title"]) for m in report["models"]] == [
        ("base", "original"), ("control", "control (old vocabulary)"), ("base-new", "adapted (ru)"),
        ("calibrated", "adapted (ru), calibrated"),
    ]  # fmt: skip
    assert report["benchmark"]["models"]["base"]["differences"] == []
    assert report["benchmark"]["models"]["control"]["differences"]
    assert set(report["writing"]["models"]) == set(report["examples"]["answers"]) == {"base", "base-new", "calibrated"}
    assert set(report["chats"]["models"]) == {"base", "control", "base-new", "calibrated"}
    assert report["maps"] == {}
    assert set(report["trainings"]) == {"pretrain", "control", "calibrate"}
    page = (study / "report" / "report.md").read_text()
    assert "carried over" not in page
    assert "model − original" in page
    assert json.loads((study / "leaderboard" / "table.json").read_text())["baseline"] == "original"


@pytest.mark.parametrize("trained", ["base-ru", "base-ru-control"])
def test_chats_are_replayed_by_the_model_and_its_control(study: Path, trained: str) -> None:
    manifest = json.loads((study / trained / "lep.json").read_text())
    assert [part["text"] for part in manifest["measures"]["replay"]] == ["held-en.jsonl=0.25", "chats.jsonl=0.25"]
    assert all(part["tokens"] > 0 for part in manifest["measures"]["replay"])


def test_other_chats_train_again_and_nothing_else_does(inputs: Path, study: Path) -> None:
    assert todo(inputs, study) == []
    again = todo(inputs, study, "chats.copy=3")
    assert again[:3] == ["chats-data", "pretrain", "control"]
    assert "run-base" not in again
    assert todo(inputs, study, "chats.share=0.2")[:2] == ["pretrain", "control"]


def test_the_plan_states_what_the_chats_cost(inputs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(inputs / "recipe.yaml")
    found = estimate(recipe, tmp_path / "new", plan(recipe, tmp_path / "new"))
    assert {stage for stage, _, _ in found.stages} >= {"chats", "pretrain", "calibrate", "evaluate"}
    assert not {stage for stage, _, _ in found.stages} & {"instruct", "propagate"}
