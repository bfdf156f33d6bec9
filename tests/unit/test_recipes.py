"""The recipes that come with lep: what is done of a study stays done, and the template says every key."""

import pytest
import yaml

from lep.pipeline import load_recipe
from lep.pipeline.recipe import SHIPPED
from lep.pipeline.steps import steps_of
from lep.pipeline.template import template

# From the first release of the pipeline; text-* are left out, whose pieces are longer since.
KEYS = {
    "mistral-7b-ru-extended": {
        "calibrate": "f07f6b4e912288ed",
        "calibrate-data": "6d72d00d6dbadd6b",
        "examples": "6554f835ab35f3c2",
        "init": "be742ecdd5e34b2b",
        "pretrain": "611c75be9ad46ddd",
        "propagate-conversion": "636c46f58ef261a3",
        "propagate-overlap": "b1e1246cec4d5300",
        "propagate-swap": "5ab0920abac8269d",
        "run-base": "60a3a6b820c2b6b1",
        "run-base-new": "8cfb910625d98018",
        "run-base-new0": "0dca1ad2bb424349",
        "run-calibrated": "93053daeec348786",
        "run-instruct": "eb1bc5cb9bb1bcd4",
        "run-instruct-conversion": "587d48c6ac6ae3e0",
        "run-instruct-overlap": "c6c89475b398ca46",
        "run-instruct-swap": "a0356096864118e1",
        "speed": "664ae6922e9a3042",
        "vocab": "af4d909d7eb2eea0",
    },
    "smollm2-ru": {
        "calibrate": "68b9fe7a18e2a347",
        "calibrate-data": "227311fa2582e2ee",
        "examples": "e6cc2612ae5adcb2",
        "init": "b8e14e4ec8921a6b",
        "instruct": "2642a713691ea5cf",
        "instruct-data": "89aaa8d85dd2f6b3",
        "pretrain": "578ccc635acecd1d",
        "propagate-conversion": "86ca054bf0c6369d",
        "propagate-overlap": "3c7ad9564b40d008",
        "propagate-swap": "7cba76f58edd1d64",
        "run-base": "aae8ddaa4bbe61b0",
        "run-base-new": "0be4913d50c29567",
        "run-base-new0": "c15bcf81bc94f10b",
        "run-calibrated": "b766b56e2e0f3b40",
        "run-instruct": "0ddf855585683cba",
        "run-instruct-conversion": "4460260fe5bda32b",
        "run-instruct-overlap": "5ae609fbb74a83c1",
        "run-instruct-swap": "f89ddb2e25b33d48",
        "speed": "e81d63234390a6b1",
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
