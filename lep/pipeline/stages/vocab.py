"""The new vocabulary, made in one of four ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from darumeru.errors import DarumeruError, UserError
from darumeru.options import settings_model
from lep.pipeline.price import Costs, Price
from lep.pipeline.sections import Section, Top, check_keys, checked, inside
from lep.pipeline.stage import Recipe, Stage, Study, inherited, named_files
from lep.vocab.commands import extend_vocabulary, optimize_vocabulary, swap_vocabulary
from lep.vocab.train import train_vocabulary

WAYS: dict[str, Callable[..., Any]] = {
    "extend": extend_vocabulary,
    "optimize": optimize_vocabulary,
    "swap": swap_vocabulary,
    "train": train_vocabulary,
}
SECTIONS: dict[str, Section] = {
    name: settings_model(f"vocab.{name}", way, "model corpus output force lang") for name, way in WAYS.items()
}


@dataclass(frozen=True)
class Vocab:
    """Settings: one of `WAYS`, and its own."""

    way: str
    settings: dict[str, Any]


class VocabStage(Stage[Vocab]):
    """See the module."""

    name = "vocab"
    help = "The new vocabulary: exactly one of extend, optimize, swap, train."
    schema = SECTIONS
    paths = frozenset({"texts", "keep_languages"})

    def read(self, content: Mapping[str, Any], top: Top) -> Vocab:
        """Return the one way that is given, with its settings."""
        ways = inside(content, self.name)
        check_keys(ways, WAYS, self.name)
        if len(ways) != 1:
            raise UserError(f"vocab must have one of {', '.join(WAYS)}, not {', '.join(ways) or 'nothing'}.")
        (way,) = ways
        return Vocab(way, checked(SECTIONS[way], ways[way], f"vocab.{way}", inherited(top)))

    def add_steps(self, study: Study) -> None:
        """Add the one step."""
        top, way, settings = study.recipe.top, study.recipe[self].way, study.recipe[self].settings
        output = study.output / "tokenizer"

        def run(_: Any) -> None:
            more = {} if way == "train" else {"lang": top.lang}
            WAYS[way](study.base, top.corpus, output, **more, **settings)

        study.add(
            self.name, self.name, output, run, inputs=[study.base, *top.corpus, *named_files(settings)],
            settings={"way": way, "lang": top.lang, **settings},
        )  # fmt: skip

    def size(self, recipe: Recipe, base: str, rows: int) -> int:
        """Return how many tokens there will be, for a base model of so many rows."""
        settings: dict[str, int] = recipe[self].settings
        return (settings.get("size") or settings.get("keep") or _tokens(base, rows)) + settings.get("add", 0)

    def added(self, recipe: Recipe) -> int:
        """Return how many of its tokens the base model lacks, at most."""
        settings: dict[str, int] = recipe[self].settings
        return settings.get("add") or settings.get("count") or settings["size"]

    def prices(self, recipe: Recipe, costs: Costs) -> dict[str, Price]:
        """Return the price of the tokenizer's files."""
        return {self.name: Price(0.0, 0.0, 200.0 * costs.rows)}


def _tokens(base: str, rows: int) -> int:
    from lep.tokenizer.vocabulary import Vocabulary

    try:
        return Vocabulary.load(base).size
    except DarumeruError:
        return rows


vocab = VocabStage()
