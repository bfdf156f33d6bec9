"""A recipe as steps: each stage adds its own, in order."""

from __future__ import annotations

from pathlib import Path

from lep.pipeline.stage import Model, Recipe, Step, Study, source_of
from lep.pipeline.stages import STAGES


def models_of(recipe: Recipe, output: Path) -> list[Model]:
    """Return all models, originals first."""
    title = "original" if recipe.direct else "base"
    base = Model("base", title, "base", source_of(recipe.top.base, output), None)
    return [base, *(model for stage in STAGES for model in stage.models(recipe, output))]


def steps_of(recipe: Recipe, output: Path) -> list[Step]:
    """Return all steps in an order in which they can be done."""
    output = output.absolute()
    study = Study(recipe, output, {model.id: model for model in models_of(recipe, output)})
    for stage in STAGES:
        stage.add_steps(study)
    return list(study.steps.values())
