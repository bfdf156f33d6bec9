"""The recipes that come with lep: what is done of a study stays done, and the template says every key."""

import json
from pathlib import Path

import pytest
import yaml

from lep.pipeline import load_recipe
from lep.pipeline.recipe import SHIPPED
from lep.pipeline.steps import steps_of
from lep.pipeline.template import template

# pretrain and what follows it: since β2 = 0.95, ε = 1e-5; the others from the first release of the pipeline. text-* are left
# out, whose pieces are longer since; run-* since the suite counts.
KEYS = {
    "mistral-7b-ru-extended": {
        "calibrate": "c19a491bb5b98278",
        "calibrate-data": "6d72d00d6dbadd6b",
        "examples": "879ba80032a2e328",
        "init": "be742ecdd5e34b2b",
        "pretrain": "f631d090bb9b29e8",
        "propagate-conversion": "7fbe172f55220303",
        "propagate-overlap": "3258973fe911ba5d",
        "propagate-swap": "ebf7afe5dee48735",
        "run-base": "db0b1a8187f70bde",
        "run-base-new": "e8a423b1a0bc308d",
        "run-base-new0": "2fb2d02b04b7f339",
        "run-calibrated": "3e2893a6916a7f9e",
        "run-instruct": "e64ebb1e254fcdf0",
        "run-instruct-conversion": "c337b6f8e2576b19",
        "run-instruct-overlap": "f567897f1dd7c989",
        "run-instruct-swap": "9a78cd76c0fbc26b",
        "speed": "ada371fa1a5547e6",
        "vocab": "af4d909d7eb2eea0",
    },
    "smollm2-pair-ru": {
        "calibrate": "2e4fa15185c1cab1",
        "calibrate-data": "227311fa2582e2ee",
        "examples": "a078514eba2fbed1",
        "init": "b8e14e4ec8921a6b",
        "instruct": "2642a713691ea5cf",
        "instruct-data": "89aaa8d85dd2f6b3",
        "pretrain": "6a38da856233c1bb",
        "propagate-conversion": "73ed0fba48753ba7",
        "propagate-overlap": "fc11acc6ca9108b2",
        "propagate-swap": "b4fb2f524211f3f8",
        "run-base": "4c1386cd36b88492",
        "run-base-new": "20c8b1965d6f9940",
        "run-base-new0": "f79bf30ed48e11f1",
        "run-calibrated": "2a2a27a0af55e900",
        "run-instruct": "df2cf13c467b776b",
        "run-instruct-conversion": "785f9410cf5460d8",
        "run-instruct-overlap": "a424e06f4a4b91a2",
        "run-instruct-swap": "d5ea0952666c4c3d",
        "speed": "c1b2c8678e1a305b",
        "vocab": "aa5b45d3c34e6b1e",
    },
}


@pytest.mark.parametrize("name", KEYS)
def test_an_existing_study_is_not_computed_again(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = load_recipe(name, ["name=x"])
    keys = {step.name: step.key[:16] for step in steps_of(recipe, tmp_path_factory.mktemp("out"))}
    assert {step: key for step, key in keys.items() if not step.startswith("text-")} == KEYS[name]


def small_recipe(folder: Path) -> Path:
    """A recipe whose benchmark has a task of its own."""
    (folder / "tasks" / "mine").mkdir(parents=True)
    (folder / "tasks" / "mine" / "task.yaml").write_text("task: mine\n")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    for name in ("ru", "held"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"text": name}) + "\n")
    recipe = {
        "name": "small", "base": "base", "corpus": ["ru.jsonl"], "held_out": {"ru": "held.jsonl"},
        "vocab": {"extend": {"add": 10}}, "pretrain": {"max_steps": 2},
        "evaluate": {"suite": "darumeru", "models": ["base"], "include_path": ["tasks"]},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def changed_steps(recipe: Path, before: dict[str, str], *changes: str) -> set[str]:
    now = keys_of(recipe, *changes)
    return {name for name in before | now if before.get(name) != now.get(name)}


def keys_of(recipe: Path, *changes: str) -> dict[str, str]:
    return {step.name: step.key for step in steps_of(load_recipe(recipe, changes), recipe.parent / "out")}


def test_another_suite_or_another_task_of_ones_own_is_evaluated_again(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    before = keys_of(recipe)
    assert changed_steps(recipe, before, "evaluate.suite=darumeru-train") == {"run-base"}
    # What Python or an editor leaves beside a task is no change.
    for left in ("__pycache__/task.pyc", ".task.yaml.swp"):
        file = tmp_path / "tasks" / "mine" / left
        file.parent.mkdir(exist_ok=True)
        file.write_text("x")
    assert changed_steps(recipe, before) == set()
    (tmp_path / "tasks" / "mine" / "task.yaml").write_text("task: mine\ndoc_to_text: other\n")
    assert changed_steps(recipe, before) == {"run-base"}


def test_the_template_is_made_from_the_sections() -> None:
    file = SHIPPED / "template.yaml"
    assert file.read_text(encoding="utf-8") == template(), "python -m lep.pipeline.template writes it again"
    assert max(map(len, file.read_text(encoding="utf-8").splitlines())) <= 140


def test_what_the_template_comments_out_is_valid_yaml(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = (SHIPPED / "template.yaml").read_text(encoding="utf-8")
    shown = yaml.safe_load(text)
    for way in ("optimize", "swap", "train"):
        lines = text[text.index(f"  # {way}:") :].split("\n\n")[0].splitlines()
        block = [line for n, line in enumerate(lines) if n == 0 or line.startswith("  #   ")]
        own = yaml.safe_load("\n".join(line.replace("# ", "", 1) for line in block[: _end(lines)]))
        file = tmp_path_factory.mktemp(way) / "recipe.yaml"
        file.write_text(yaml.safe_dump({**shown, "vocab": own}))
        assert load_recipe(file).top.name == "my-study"


def _end(lines: list[str]) -> int:
    """The number of lines up to the next way."""
    return next((n for n, line in enumerate(lines) if n and line.startswith("  # ") and line[4] != " "), len(lines))
