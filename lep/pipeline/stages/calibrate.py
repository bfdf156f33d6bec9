"""The propagated instruct model trained on a few chats of the original one; the adapted base where there is no pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Top, inside
from lep.pipeline.stage import Model, Recipe, Stage, Study
from lep.pipeline.stages.pretrain import pretrain
from lep.pipeline.stages.propagate import propagate
from lep.pipeline.training import PATHS, SECTIONS, Training, add_training, needed_files, read_training, training_prices


class CalibrateStage(Stage[Training | None]):
    """Settings are None without calibration."""

    name = "calibrate"
    help = (
        "The first propagated model, or the adapted base, calibrated; leave the section out for a study without that."
    )
    schema = SECTIONS
    paths = PATHS
    kind = "calibrated"

    def read(self, content: Mapping[str, Any], top: Top) -> Training | None:
        """Return the sections `data` and `train`."""
        return read_training(inside(content, self.name), self.name, top) if self.name in content else None

    def add_steps(self, study: Study) -> None:
        """Add chats and training."""
        training = study.recipe[self]
        if training is None:
            return
        first = _adapted(study.recipe, study.output)
        assert first.step is not None  # noqa: S101 - every adapted model is made
        made = study.original.step
        add_training(
            study,
            study.models[self.kind],
            training,
            first.source,
            study.original.source,
            needs=[first.step],
            asked=[made] if made else [],
            answers=[] if made else [study.original.source],
        )

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return the calibrated model, where there is one."""
        if recipe[self] is None:
            return []
        lang = recipe.top.lang
        title = f"{_adapted(recipe, output).title}, calibrated"
        name = f"{'base' if recipe.direct else 'instruct'}-{lang}-calibrated"
        return [Model(self.kind, title, self.kind, str(output / name), self.name)]

    def files(self, settings: Training | None) -> list[str]:
        """Return the texts that its chats are made from."""
        return needed_files(settings)

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the prices of chats and training, in the new vocabulary."""
        return training_prices(self.name, recipe[self], costs, costs.rows)


calibrate = CalibrateStage()


def _adapted(recipe: Recipe, output: Path) -> Model:
    """Return the model that is calibrated."""
    return (propagate.models(recipe, output)[:1] or pretrain.models(recipe, output)[-1:])[0]
