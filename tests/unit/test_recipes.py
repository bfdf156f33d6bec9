"""The recipes that come with lep: what is done of a study stays done, and the template says every key."""

import pytest
import yaml

from lep.pipeline import load_recipe
from lep.pipeline.recipe import SHIPPED
from lep.pipeline.steps import steps_of
from lep.pipeline.template import template

# pretrain and what follows it: since β2 = 0.95, ε = 1e-5; the others from the first release of the pipeline. text-* are left
# out, whose pieces are longer since.
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
        "run-base": "60a3a6b820c2b6b1",
        "run-base-new": "c67d18072f0c2092",
        "run-base-new0": "0dca1ad2bb424349",
        "run-calibrated": "e0dbfc5e75e482a8",
        "run-instruct": "eb1bc5cb9bb1bcd4",
        "run-instruct-conversion": "1086dfa5c4648578",
        "run-instruct-overlap": "822c7656291b651e",
        "run-instruct-swap": "407b1da54a515696",
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
        "run-base": "aae8ddaa4bbe61b0",
        "run-base-new": "61b6c069dc1e2f23",
        "run-base-new0": "c15bcf81bc94f10b",
        "run-calibrated": "e73837d9d19f7b6b",
        "run-instruct": "0ddf855585683cba",
        "run-instruct-conversion": "c49e9cbb9923814a",
        "run-instruct-overlap": "ebd527f7345f5f73",
        "run-instruct-swap": "877684a7b11aa0ab",
        "speed": "c1b2c8678e1a305b",
        "vocab": "aa5b45d3c34e6b1e",
    },
}


@pytest.mark.parametrize("name", KEYS)
def test_an_existing_study_is_not_computed_again(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    recipe = load_recipe(name, ["name=x"])
    keys = {step.name: step.key[:16] for step in steps_of(recipe, tmp_path_factory.mktemp("out"))}
    assert {step: key for step, key in keys.items() if not step.startswith("text-")} == KEYS[name]


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
