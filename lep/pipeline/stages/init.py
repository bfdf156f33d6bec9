"""The base model in the new vocabulary: new rows from old ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from darumeru.options import Option, settings_model
from lep.initialisation import strategy
from lep.initialisation.job import initialise
from lep.pipeline.memory import rows_of
from lep.pipeline.price import Costs, Instead, Price
from lep.pipeline.sections import Top, checked, inside, one_of
from lep.pipeline.stage import Model, Recipe, Stage, Study, Talk, inherited, named_files


class InitStage(Stage[dict[str, Any]]):
    """See the module."""

    name = "init"
    help = "The base model in the new vocabulary."
    schema = settings_model(
        "init",
        initialise,
        "model tokenizer output corpus force warn",
        strategy=(Annotated[one_of(strategy.names), Option("What the rows of new tokens are.")], "mean"),
    )
    paths = frozenset({"donor"})
    kind = "base-new0"

    def read(self, content: Mapping[str, Any], top: Top) -> dict[str, Any]:
        """Return the parameters of `initialise`."""
        return checked(self.schema, inside(content, self.name), self.name, inherited(top))

    def add_steps(self, study: Study) -> None:
        """Add the one step; a strategy that reads a corpus has it as an input, unless there is a donor."""
        settings, top = study.recipe[self], study.recipe.top
        reads = "corpus" in strategy.find(settings["strategy"]).settings and not settings["donor"]
        corpus = list(top.corpus) if reads else []
        output = study.models[self.kind].source

        def run(talk: Talk) -> None:
            initialise(
                study.base, study.steps["vocab"].output, output, corpus=corpus, warn=talk.warn, **settings
            )  # fmt: skip

        study.add(
            self.name, self.name, output, run, needs=["vocab"], inputs=[study.base, *corpus, *named_files(settings)],
            settings=settings, model=True, passing=True,
        )  # fmt: skip

    def models(self, recipe: Recipe, output: Path) -> list[Model]:
        """Return the initialised model."""
        lang = recipe.top.lang
        title = f"base/{lang}⁰ (initialised)"
        return [Model(self.kind, title, self.kind, str(output / f"base-{lang}0"), self.name)]

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of the model's files."""
        settings, whole = recipe[self], costs.shape.bytes(costs.rows)
        similar = "donor" in strategy.find(settings["strategy"]).settings
        memory = rows_of(costs.shape, costs.rows, similar=similar)
        linked = Instead("init.link=true", bytes=costs.embedding_bytes)
        if settings["link"]:
            return {self.name: Price(0.0, 0.0, costs.embedding_bytes, memory)}
        return {self.name: Price(0.0, 0.0, whole, memory, instead=(linked,))}


init = InitStage()
