"""What was measured of the cells of a study, and how each cell stands."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.files import read_json
from darumeru.scoring.aggregate import Floats
from lep.pipeline.price import Shape, shape_of
from lep.pipeline.stage import source_of
from lep.pipeline.stages import pretrain
from lep.pretraining.schedule import parse_schedule
from lep.study.grid import Cell, Grid
from lep.study.steps import record, steps_of


@dataclass(frozen=True)
class Text:
    """A held-out text as a model reads it.

    Attributes:
        nats: of each document.
        bytes: of each document.
        symbols_per_token: characters / tokens.
        tokens_per_word: fertility.
        bytes_per_token: of the text.
    """

    nats: Floats
    bytes: Floats
    symbols_per_token: float
    tokens_per_word: float
    bytes_per_token: float

    @property
    def bits(self) -> float:
        """Bits per byte."""
        return float(self.nats.sum() / math.log(2) / self.bytes.sum())


@dataclass(frozen=True)
class Measured:
    """A model: of a cell, or an original one."""

    texts: Mapping[str, Text]
    tokens: int
    """Of its vocabulary."""
    copied: float | None
    """Mean share of a line that it copies; None where that was not measured."""
    suite: Mapping[str, Any] | None
    """Score of the benchmark with its interval."""

    @classmethod
    def of(cls, content: Mapping[str, Any], suite: Mapping[str, Any] | None) -> Measured:
        """Return what a file of `lep.study.measure` says."""
        texts = {
            name: Text(np.array(text["nats"]), np.array(text["bytes"], dtype=float), text["symbols_per_token"],
                       text["tokens_per_word"], text["bytes_per_token"])
            for name, text in content["texts"].items()
        }  # fmt: skip
        copies = content["copied"]
        return cls(texts, content["tokens"], None if copies is None else float(np.mean(copies)), suite)


@dataclass(frozen=True)
class Result:
    """A cell that is done.

    Attributes:
        cell: of the grid.
        model: after training.
        original: its base, in its own vocabulary and before any training.
        curve: step, tokens, characters, seconds and bits per byte (text → value) along the training.
        characters: that were read.
        flop: operations of the training.
        forward: operations of reading a token.
        seconds: of training and measuring.
    """

    cell: Cell
    model: Measured
    original: Measured
    curve: list[dict[str, Any]]
    characters: int
    flop: float
    forward: float
    seconds: float

    def at_start(self, text: str) -> float:
        """Bits per byte of the initialised model, before any training."""
        bits = self.curve[0]["bits"]
        return float(bits.get(text, bits.get("")))

    @property
    def tokens(self) -> int:
        """That were read."""
        return int(self.curve[-1]["tokens"])


def load_results(grid: Grid, root: Path) -> list[Result]:
    """Return the cells that are done."""
    contents: dict[str, str] = {}
    shapes: dict[str, Shape] = {}
    found = []
    for cell in grid.cells:
        steps = steps_of(grid, cell, root, contents)
        wanted = [name for name in steps if name.partition("-")[0] in ("measure", "original")]
        records = {name: record(steps[name]) for name in wanted}
        if any(value is None for value in records.values()):
            continue
        base = source_of(cell.recipe.top.base, root)
        if base not in shapes:
            shapes[base] = shape_of(base)
        content = read_json(steps["measure"].output)
        training, settings = content["training"], cell.recipe[pretrain]
        rows = training["rows"]
        each = sum(share * shapes[base].training(rows, what) for what, share in parse_schedule(settings.train))
        curve = training["curve"]
        found.append(
            Result(
                cell,
                Measured.of(content, _suite(steps, "measure-suite")),
                Measured.of(read_json(steps["original"].output), _suite(steps, "original-suite")),
                curve,
                training["characters"],
                each * curve[-1]["tokens"],
                shapes[base].forward(rows),
                curve[-1]["seconds"] + sum((r or {})["seconds"] for n, r in records.items() if n.startswith("measure")),
            )
        )
    return found


def _suite(steps: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return score and interval of the suite."""
    from darumeru.record.run import load_run

    if name not in steps:
        return None
    step = steps[name]
    run = load_run(step.output.parent / "runs" / read_json(step.output)["run"])
    return dict(run.scores.suite.to_json())
