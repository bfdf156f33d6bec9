"""The trained embeddings carried over to the instruct model, by each method that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from darumeru.errors import UserError
from darumeru.options import Option, settings_model
from lep.pipeline.memory import mapping, trying
from lep.pipeline.price import Costs, Instead, Price
from lep.pipeline.sections import Top, checked, inside, one_of
from lep.pipeline.stage import Model, Recipe, Stage, Study, Talk, inherited
from lep.pipeline.stages.pretrain import pretrain
from lep.pretraining.schedule import parse_schedule
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
_CHARACTERS_OF_A_TOKEN = 3.0


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
        if study.recipe.direct:
            return
        recipe, made = study.recipe, study.original.step
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
            given = [] if made else [study.original.source]
            study.add(
                f"propagate-{name}", self.name, study.models[f"instruct-{name}"].source, partial(self._run, study, name),
                needs=["pretrain", *([made] if made else [])],
                inputs=[study.base, *given, *(recipe.top.held_out.values() if auto else [])], settings=settings, model=True,
            )  # fmt: skip

    def _run(self, study: Study, name: str, talk: Talk) -> None:
        from darumeru.data.texts import read_all

        top = study.recipe.top
        new = next(iter(top.held_out.values()))
        texts = read_all([new], field=top.field, limit=_CHARACTERS) if name == method.AUTO else ()
        settings = {key: value for key, value in study.recipe[self].items() if key != "methods"}
        job.propagate(
            study.base, study.steps["pretrain"].output, study.original.source, study.models[f"instruct-{name}"].source,
            method=name, texts=texts, warn=talk.warn, **settings,
        )  # fmt: skip

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return a model for each method; none where there is no instruct model."""
        if recipe.direct:
            return []
        lang = recipe.top.lang
        return [
            Model(f"instruct-{name}", f"instruct/{lang}, {name}", self.kind, str(output / f"instruct-{lang}-{name}"),
                  f"propagate-{name}")
            for name in recipe[self]["methods"]
        ]  # fmt: skip

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of each model: its files, its map (3 V d² for the sums, two d³ to solve), and of `auto` the text."""
        if recipe.direct:
            return {}
        settings, rows = recipe[self], costs.rows
        shape = replace(costs.shape, tied=costs.shape.tied and not recipe[pretrain].untie)
        fitted = (1 if shape.tied else 2) * (3.0 * rows * shape.dim**2 + 2.0 * shape.dim**3)
        layers = settings["backbone"] == "delta" and any(
            _trains_layers(what) for what, _ in parse_schedule(recipe[pretrain].train)
        )
        disk = costs.embedding_bytes if settings["link"] and not layers else shape.bytes(rows)
        smaller, names = [], settings["methods"]
        if settings["link"] is False and not layers:
            smaller.append(Instead("propagate.link=true", bytes=costs.embedding_bytes))
        if len(names) > 1:
            smaller.append(
                Instead(f"propagate.methods=[{settings['methods'][0]}]", bytes=disk / len(settings["methods"]))
            )
        prices = {}
        for name in names:
            candidates = sum(len(method.find(n).candidates) for n in method.names()) if name == method.AUTO else 0
            tokens = candidates * _CHARACTERS / _CHARACTERS_OF_A_TOKEN
            memory = trying(shape, rows) if candidates else mapping(shape, rows)
            cheaper = [Instead("propagate.methods=[conversion]", mapping(shape, rows))] if candidates else []
            prices[f"propagate-{name}"] = Price(
                tokens, max(candidates, 1) * fitted + tokens * shape.forward(rows), disk, memory,
                instead=(*smaller, *cheaper),
            )  # fmt: skip
        return prices


propagate = PropagateStage()


def _trains_layers(what: str) -> bool:
    return bool({"all", "ends", "lora"} & {*what.split("+")})
