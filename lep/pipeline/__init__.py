"""The whole pipeline from one file: `lep run RECIPE.yaml`.

stages/       the stages, one a file: keys of the recipe, steps, models, costs
stage.py      what a stage is, and a step, with its settings, inputs, output and key
training.py   the two steps that the stages instruct and calibrate share
sections.py   the sections of a recipe, checked
recipe.py     the file: its keys are the stages', and its values
template.py   recipes/template.yaml, made from the sections
steps.py      recipe → steps, in order
execution.py  which steps are done, and running the others in order
price.py      a model's sizes, tokens, operations and disk of a step
cost.py       hours and disk of a plan, before anything is computed
measures.py   what the report states of each model
report.py     the adaptation report, from the stored measures
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lep.pipeline.cost import estimate
    from lep.pipeline.execution import plan, run_recipe
    from lep.pipeline.recipe import load_recipe
    from lep.pipeline.report import write_report
    from lep.pipeline.stage import Recipe

_PLACES = {
    "Recipe": "stage", "estimate": "cost", "load_recipe": "recipe", "plan": "execution", "run_recipe": "execution",
    "write_report": "report",
}  # fmt: skip

__all__ = ["Recipe", "estimate", "load_recipe", "plan", "run_recipe", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lep.pipeline.{_PLACES[name]}"), name)
