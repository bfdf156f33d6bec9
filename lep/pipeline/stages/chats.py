"""Chats that the training replays: the base model's own answers, texts to copy and to write on, in its chat template.

For a base that chats already, as where an instruct model itself is adapted: it goes on keeping to its template, ends its turns
and copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from darumeru.options import Option, settings_model
from lep.calibration.data import make_data
from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Top, checked, inside
from lep.pipeline.stage import Recipe, Stage, Study, inherited
from lep.pipeline.training import PATHS, add_chats, chats_file, chats_price, named_texts

_SHARE = (
    Annotated[float, Option("Of the rows of each step of pretrain that they are.")],
    Field(0.1, gt=0.0, le=0.9),
)


class ChatsStage(Stage[Mapping[str, Any] | None]):
    """Settings are None where no chats are replayed."""

    name = "chats"
    help = "Chats replayed in pretrain, so that a base that chats goes on doing so; leave the section out for none."
    schema = settings_model("chats", make_data, "model output force progress", share=_SHARE)
    paths = PATHS

    def read(self, content: Mapping[str, Any], top: Top) -> Mapping[str, Any] | None:
        """Return the settings of `lep.make_data`, and the share of the chats."""
        if self.name not in content:
            return None
        return checked(self.schema, inside(content, self.name), self.name, inherited(top))

    def add_steps(self, study: Study) -> None:
        """Add the one step, where there are chats."""
        settings = study.recipe[self]
        if settings is not None:
            data = {key: value for key, value in settings.items() if key != "share"}
            add_chats(study, self.name, data, study.base, answers=[study.base])

    def files(self, settings: Mapping[str, Any] | None) -> list[str]:
        """Return the texts that the chats are made from."""
        return named_texts(settings or {})

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of the answers, in the old vocabulary."""
        settings = recipe[self]
        return {} if settings is None else chats_price(self.name, settings, costs, costs.shape.rows)

    def replay(self, recipe: Recipe, output: Path) -> list[str]:
        """Return what is replayed, as `--replay` takes it."""
        settings = recipe[self]
        return [] if settings is None else [f"{chats_file(output, self.name)}={settings['share']:g}"]


chats = ChatsStage()
