"""The trained embeddings carried over to the instruct model, by each method that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from darumeru.errors import UserError
from darumeru.options import Option, settings_model
from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Top, checked, inside, one_of
from lep.pipeline.stage import Model, Recipe, Stage, Study, Talk, inherited
from lep.propagation import job, method

_METHODS = (
    Annotated[
        tuple[one_of(method.choices), ...],  # type: ignore[misc]
        Option(
            "Several are run side by side, the first is calibrated. auto: the one with the fewest held-out bits per byte."
        ),
    ],
    Field(("conversion",), min_length=1),
)
_CHARACTERS = 200_000
"""Of the held-out text that `auto` chooses by."""


class PropagateStage(Stage[dict[str, Any]]):
    """See the module."""

    name = "propagate"
    help = "The trained embeddings carried over to the instruct model."
    schema = settings_model(
        "propagate", job.propagate, "base adapted instruct output method texts force warn", methods=_METHODS
    )
    kind = "propagated"

    def read(self, content: Mapping[str, Any], top: Top) -> dict[str, Any]:
        """Return `methods`, and the other parameters of `propagate`."""
        settings = checked(self.schema, inside(content, self.name), self.name, inherited(top))
        if len(set(settings["methods"])) < len(settings["methods"]):
            raise UserError("propagate.methods names a method twice.")
        return settings

    def add_steps(self, study: Study) -> None:
        """Add a step for each method; `auto` reads the held-out texts, too."""
        recipe, made = study.recipe, study.instruct.step
        for name in recipe[self]["methods"]:
            auto = name == method.AUTO
            own = () if auto else method.find(name).settings
            settings: dict[str, Any] = {"method": name}
            settings |= {"strength": recipe[self]["strength"]} if "strength" in own else {}
            settings |= {"field": recipe.top.field} if auto else {}
            # Of settings that came later only what is not the default counts, so that finished studies stay finished.
            for key in ("backbone", "alpha"):
                if (value := recipe[self][key]) != self.schema.model_fields[key].default:
                    settings[key] = value
            given = [] if made else [study.instruct.source]
            study.add(
                f"propagate-{name}", self.name, study.models[f"instruct-{name}"].source, partial(self._run, study, name),
                needs=["pretrain", *([made] if made else [])],
                inputs=[study.base, *given, *(recipe.top.held_out.values() if auto else [])], settings=settings, model=True,
            )  # fmt: skip

    def _run(self, study: Study, name: str, talk: Talk) -> None:
        from lep.corpus.read import read_all

        top = study.recipe.top
        new = next(iter(top.held_out.values()))
        texts = read_all([new], field=top.field, limit=_CHARACTERS) if name == method.AUTO else ()
        settings = {key: value for key, value in study.recipe[self].items() if key != "methods"}
        job.propagate(
            study.base, study.steps["pretrain"].output, study.instruct.source, study.models[f"instruct-{name}"].source,
            method=name, texts=texts, warn=talk.warn, **settings,
        )  # fmt: skip

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return a model for each method."""
        lang = recipe.top.lang
        return [
            Model(f"instruct-{name}", f"instruct/{lang}, {name}", self.kind, str(output / f"instruct-{lang}-{name}"),
                  f"propagate-{name}")
            for name in recipe[self]["methods"]
        ]  # fmt: skip

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of each model's files."""
        disk = costs.embedding_bytes if recipe[self]["link"] else costs.shape.bytes(costs.rows)
        return {f"propagate-{name}": Price(0.0, 0.0, disk) for name in recipe[self]["methods"]}


propagate = PropagateStage()
