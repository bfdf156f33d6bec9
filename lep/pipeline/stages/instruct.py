"""The original instruct model: given, or made from the base model by a training on chats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Top
from lep.pipeline.stage import Model, Recipe, Stage, Study, source_of
from lep.pipeline.training import PATHS, SECTIONS, Training, add_training, needed_files, read_training, training_prices


class InstructStage(Stage[Training | None]):
    """Settings are None where the model is given, or there is none."""

    name = "instruct"
    help = "The original instruct model, where it is made from the base."
    schema = SECTIONS
    paths = PATHS
    kind = "instruct"

    def read(self, content: Mapping[str, Any], top: Top) -> Training | None:
        """Return the sections `data` and `train`, where the recipe has them in place of a model."""
        own = content.get(self.name)
        return read_training(own, self.name, top) if isinstance(own, dict) else None

    def add_steps(self, study: Study) -> None:
        """Add chats and training, where the model is made."""
        training = study.recipe[self]
        if training is not None:
            add_training(
                study, study.original, training, study.base, study.base, outside=[study.base], answers=[study.base]
            )

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return the instruct model, given or made, if there is one."""
        if recipe.top.instruct is None:
            return []
        made = recipe[self] is not None
        source = str(output / "instruct") if made else source_of(recipe.top.instruct, output)
        return [Model(self.kind, "instruct (original)", self.kind, source, self.name if made else None)]

    def files(self, settings: Training | None) -> list[str]:
        """Return the texts that its chats are made from."""
        return needed_files(settings)

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the prices of chats and training, in the old vocabulary."""
        return training_prices(self.name, recipe[self], costs, costs.shape.rows)


instruct = InstructStage()
