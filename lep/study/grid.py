"""The grid: a recipe with axes, in one YAML file.

A key of an axis is a key of the recipe with dots (`base`, `vocab.extend.add`, `init.strategy`, `pretrain.train`,
`pretrain.replay`, `corpus`, …), or one of two that the grid adds: `tokens`, of training, and `seed`, of all draws. A cell has one
value of each. `vocab.extend.add` of 0 is the control: the base trained in its own vocabulary.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from darumeru.errors import UserError
from darumeru.files import fingerprint
from darumeru.options import Option, Strict
from lep.initialisation import strategy
from lep.pipeline.recipe import put, read_content, recipe_of
from lep.pipeline.sections import checked
from lep.pipeline.stage import Recipe, plain_settings
from lep.pipeline.stages import evaluate, init, pretrain, vocab
from lep.pipeline.stages.pretrain import Settings
from lep.pipeline.stages.vocab import SECTIONS
from lep.pretraining.control import control_settings

MOST = 1_000
"""Cells of a grid."""
_LONGEST = 50
"""Parts of a path in a label."""
TOKENS, SEED, ADD = "tokens", "seed", "vocab.extend.add"
_SHARED = ("name", "base", "corpus", "held_out", "lang", "field", "vocab", "init", "pretrain", "evaluate")
"""Keys of a recipe that a grid may have."""
_FIXED = {"name", "lang", "held_out", "field", "evaluate"}
"""What all cells must share, or they could not be compared."""
_INSTEAD = {"pretrain.max_steps": TOKENS, "pretrain.num_train_epochs": TOKENS, "pretrain.seed": SEED, "init.seed": SEED}
TITLES = {
    ADD: "new tokens", "vocab": "vocabulary", "init.strategy": "initialisation", "pretrain.train": "trained",
    "pretrain.replay": "replay", TOKENS: "training tokens",
}  # fmt: skip
"""What an axis is called on pages, where it is not its key."""


class Own(Strict):
    """The keys of a grid that a recipe does not have."""

    tokens: Annotated[int, Option("Training tokens of a cell, in its own vocabulary.")] = Field(1_000_000, ge=1)
    seed: Annotated[int, Option("Of initialisation and order of the data.")] = Field(0, ge=0)
    scripts: Annotated[tuple[str, ...], Option("Unicode scripts of the language, where `lang` does not tell.")] = ()
    passes: Annotated[float, Option("Most passes over the corpus; more are refused.")] = Field(1.0, gt=0)
    copies: Annotated[int, Option("Lines of the corpus that each model is to copy; 0: not measured.")] = Field(12, ge=0)
    keep_models: Annotated[bool, Option("Trained models stay after they are measured.")] = False
    beside: Annotated[
        tuple[str, ...], Option("study.json of the same grid in other languages, for what depends on the language.")
    ] = ()
    axes: Annotated[dict[str, list[Any]], Option("Key: values. The grid is every combination.")] = Field({})
    cells: Annotated[list[dict[str, Any]], Option("Or the cells one by one, each key: value.")] = Field([])


@dataclass(frozen=True)
class Cell:
    """One adaptation of the grid.

    Attributes:
        values: of each axis; None where the control does not have what the axis is about.
        recipe: its settings; of a control, those of the control.
        tokens: of training that were asked for.
        seed: of all draws.
        labels: of its values, as pages show them and as levels of the analysis: different values of an axis have different ones.
    """

    values: Mapping[str, Any]
    recipe: Recipe
    tokens: int
    seed: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def control(self) -> bool:
        """The base is trained in its own vocabulary."""
        return is_control(self.recipe)

    @cached_property
    def id(self) -> str:
        """In names of files and on the command line."""
        return self.without()[:8]

    @property
    def name(self) -> str:
        """For readers."""
        return " · ".join(
            f"{title(key)} {self.labels.get(key, label(value))}"
            for key, value in self.values.items()
            if value is not None
        )

    def without(self, *axes: str) -> str:
        """Return what is left of its values without some axes, as a key to group by."""
        # A file counts by its last part, as everywhere in keys, unless that is another value's, too.
        told = {
            key: self.labels[key] if self.labels.get(key, label(value)) != label(value) else value
            for key, value in self.values.items()
            if key not in axes
        }
        return fingerprint(plain_settings(told))


@dataclass(frozen=True)
class Grid:
    """A grid that was read and checked.

    Attributes:
        file: it was read from.
        changes: that were made to it.
        name: of the study.
        own: what a recipe does not have.
        axes: key → values, of those with more than one value.
        cells: all of them.
        merged: combinations that are the same control as another one.
        evaluates: the benchmark is run.
        notes: on cells that are left out.
    """

    file: Path
    changes: tuple[str, ...]
    name: str
    own: Own
    axes: dict[str, list[Any]]
    cells: list[Cell]
    merged: int
    evaluates: bool = False
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Recipe:
        """A recipe, for what all cells share."""
        return self.cells[0].recipe

    @property
    def text(self) -> str:
        """The held-out text that decides: the first."""
        return next(iter(self.first.top.held_out))


def read_grid(file: str | Path, changes: Sequence[str] = ()) -> Grid:
    """Read a grid; nothing but the file is looked at.

    Args:
        file: YAML.
        changes: `KEY=VALUE`, keys with dots.

    Raises:
        UserError: no such file, an unknown key or value, too many cells, two cells that are the same.
    """
    path = Path(file)
    if not path.is_file():
        raise UserError(f"There is no grid {path}. Name a YAML file; docs/study.md shows one.")
    content = read_content(path, changes)
    folder = path.resolve().parent
    own = Own(**checked(Own, {key: content[key] for key in content if key not in _SHARED}, ""))
    own = own.model_copy(update={"beside": tuple(str(folder / file) for file in own.beside)})
    if bool(own.axes) == bool(own.cells):
        raise UserError(f"{path} has {'both axes and' if own.axes else 'neither axes nor'} cells. Write one of them.")
    common = {key: value for key, value in content.items() if key in _SHARED} | {TOKENS: own.tokens, SEED: own.seed}
    cells, merged, notes = (_whole if own.axes else _listed)(own, common, folder)
    axes = {key: list(_distinct(cell.values.get(key) for cell in cells)) for key in cells[0].values}
    varied = {key: [v for v in values if v is not None] for key, values in axes.items() if len(values) > 1}
    names = {key: labels_of(values) for key, values in axes.items()}
    cells = [replace(c, labels={k: names[k][fingerprint(v)] for k, v in c.values.items()}) for c in cells]
    return Grid(
        path.absolute(), tuple(changes), cells[0].recipe.top.name, own, varied, cells, merged, evaluate.name in content, notes
    )  # fmt: skip


_Cells = tuple[list[Cell], int, tuple[str, ...]]
"""Cells, how many combinations were merged with another one, notes."""


class _NoControlError(UserError):
    """A control has nothing to train."""


def _whole(own: Own, common: Mapping[str, Any], folder: Path) -> _Cells:
    for key, values in own.axes.items():
        _check_axis(key)
        if not values:
            raise UserError(f"axes.{key} has no value. Give it some, or leave it out.")
        if len(list(_distinct(values))) < len(values):
            raise UserError(f"axes.{key} has a value twice, so cells would be the same. Leave one out.")
    number = math.prod(map(len, own.axes.values()))
    if number > MOST:
        raise UserError(
            f"The grid has {number:,} cells, and {MOST:,} is the most. Take fewer values, or list the cells that matter (cells:)."
        )
    found: dict[str, Cell] = {}
    impossible: list[_NoControlError] = []
    for chosen in itertools.product(*own.axes.values()):
        try:
            cell = _cell(dict(zip(own.axes, chosen, strict=True)), common, own.scripts, folder)
        except _NoControlError as error:
            impossible.append(error)
            continue
        # Controls that differ in nothing that they have are one; what they do not have is nobody's value.
        settings = cell.recipe[pretrain].model_dump(mode="json")
        same = [cell.recipe.top.model_dump(mode="json"), settings, cell.tokens] if cell.control else cell.values
        other = found.setdefault(fingerprint(same), cell)
        shared = {k: v if fingerprint(v) == fingerprint(cell.values[k]) else None for k, v in other.values.items()}
        found[fingerprint(same)] = replace(other, values=shared)
    cells = list(found.values())
    if impossible and not any(cell.control for cell in cells):
        raise impossible[0]
    count = "1 control is" if len(impossible) == 1 else f"{len(impossible)} controls are"
    note = f"{count} left out, where new rows alone would be trained, which the base does not have."
    return cells, number - len(impossible) - len(cells), (note,) if impossible else ()


def _listed(own: Own, common: Mapping[str, Any], folder: Path) -> _Cells:
    if len(own.cells) > MOST:
        raise UserError(f"The grid lists {len(own.cells):,} cells, and {MOST:,} is the most.")
    keys = list(dict.fromkeys(key for values in own.cells for key in values))
    for key in keys:
        _check_axis(key)
    found: dict[str, int] = {}
    cells = []
    for number, values in enumerate(own.cells, 1):
        if missing := [key for key in keys if key not in values]:
            raise UserError(f"cells: number {number} does not say {missing[0]}, and others do. Give it a value there.")
        cell = _cell({key: values[key] for key in keys}, common, own.scripts, folder)
        if (other := found.setdefault(fingerprint(cell.values), number)) != number:
            raise UserError(f"cells: numbers {other} and {number} are the same ({cell.name}). Leave one out.")
        cells.append(cell)
    return cells, 0, ()


def _check_axis(key: str) -> None:
    first = key.partition(".")[0]
    if key in _INSTEAD:
        raise UserError(f"axes.{key}: write the axis as {_INSTEAD[key]}.")
    if first in _FIXED or first not in {*_SHARED, TOKENS, SEED}:
        allowed = ", ".join(sorted({*_SHARED, TOKENS, SEED} - _FIXED))
        raise UserError(f"axes.{key} cannot be an axis. An axis is {allowed}, or a key inside one, such as {ADD}.")


def _cell(values: Mapping[str, Any], common: Mapping[str, Any], scripts: Sequence[str], folder: Path) -> Cell:
    content = copy.deepcopy(dict(common))
    for key, value in values.items():
        keys = key.split(".")
        # One way of making a vocabulary takes the place of another.
        if keys[0] == vocab.name and len(keys) > 1:
            content[vocab.name] = {k: v for k, v in (content.get(vocab.name) or {}).items() if k == keys[1]}
        put(content, keys, value, folder)
    own = checked(Own, {key: content.pop(key) for key in (TOKENS, SEED)}, "")
    recipe = recipe_of(_complete(_with_scripts(content, scripts), own[TOKENS], own[SEED]))
    if recipe[pretrain].control:
        raise UserError(f"pretrain.control: the control of a grid is the cell with {ADD} 0. Leave the key out.")
    if is_control(recipe):
        try:
            settings = recipe[pretrain].model_copy(update=control_settings(recipe[pretrain]).model_dump())
        except UserError as error:
            raise _NoControlError(str(error)) from None
        recipe = replace(recipe, settings={**recipe.settings, pretrain.name: settings})
        values = {k: None if k.startswith("init") else v for k, v in values.items()}
    return Cell(values, recipe, own[TOKENS], own[SEED])


def _complete(content: dict[str, Any], tokens: int, seed: int) -> dict[str, Any]:
    """Return a recipe's keys with what follows from tokens and seed; evaluation and saving are shares of the training."""
    if evaluate.name in content and content.get("lang", "ru") != "ru":
        raise UserError(
            f"evaluate: the benchmark is Russian, and the grid's language is {content['lang']!r}. Leave the section out."
        )
    content["instruct"] = content.get("base", "")
    training = dict(content.get(pretrain.name) or {})
    sizes = [training.get(key, Settings.model_fields[key].default) for key in ("total_batch_size", "block_size")]
    steps = max(round(tokens / math.prod(sizes)), 1) if all(isinstance(size, int) for size in sizes) else 1
    quarter = math.ceil(steps / 4)
    shares = {
        "save_steps": quarter,
        "eval_steps": quarter,
        "warmup_steps": math.ceil(steps / 20),
        "save_total_limit": 2,
    }
    content[pretrain.name] = shares | training | {"max_steps": steps, "seed": seed}
    start = {"link": True} | dict(content.get(init.name) or {})
    # Only what draws has a seed, so that seeds share what does not.
    draws = (name := start.get("strategy", "mean")) in strategy.names() and "seed" in strategy.find(name).settings
    content[init.name] = start | ({"seed": seed} if draws else {})
    return content


def _with_scripts(content: dict[str, Any], scripts: Sequence[str]) -> dict[str, Any]:
    """Return a recipe's keys with the scripts of the language in each section that takes some."""
    if not scripts:
        return content
    ways = {
        way: ({"scripts": list(scripts)} if "scripts" in SECTIONS[way].model_fields else {}) | (settings or {})
        for way, settings in content.get(vocab.name, {}).items()
    }
    return content | {
        vocab.name: ways, pretrain.name: {"scripts": list(scripts)} | dict(content.get(pretrain.name) or {})
    }  # fmt: skip


def is_control(recipe: Recipe) -> bool:
    """Return whether no token is new."""
    found = recipe[vocab]
    return found.way == "extend" and found.settings["add"] == 0


def title(key: str) -> str:
    """Return what an axis is called on pages."""
    return TITLES.get(key, key)


def labels_of(values: Sequence[Any]) -> dict[str, str]:
    """Return the labels of an axis's values by their fingerprints: as short as can be, and different where the values are."""
    found = {}
    for value in values:
        others = [other for other in values if fingerprint(other) != fingerprint(value)]
        lengths = (n for n in range(1, _LONGEST) if label(value, n) not in {label(other, n) for other in others})
        found[fingerprint(value)] = label(value, next(lengths, _LONGEST))
    return found


def label(value: Any, parts: int = 1) -> str:
    """Return a value of an axis as pages show it; a file or model by so many of its last parts."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return " ".join(f"{key} {label(inner, parts)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return " + ".join(label(inner, parts) for inner in value) or "none"
    return (
        "/".join(Path(value).parts[-parts:]).replace("//", "/")
        if isinstance(value, str) and "/" in value
        else str(value)
    )


def _distinct(values: Iterator[Any] | Sequence[Any]) -> Iterator[Any]:
    seen = set()
    for value in values:
        if (key := fingerprint(value)) not in seen:
            seen.add(key)
            yield value
