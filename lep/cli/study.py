"""A grid of design choices in one command: bases, vocabularies, initialisations, training, seeds; and what follows from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.text import Text

from darumeru.errors import UserError
from darumeru.options import Command
from lep.cli.terminal import group, print_table, progress, warn
from lep.study.grid import read_grid
from lep.study.plan import Plan, on_gpus, plan_study
from lep.study.run import run_study
from lep.study.workers import open_workers

app = group()


@app.command(cls=Command, help=f"{__doc__} The same command resumes.")
def study_command(
    grid: Annotated[str, typer.Argument(help="Grid (.yaml): a recipe with axes.")],
    output: Annotated[Path, typer.Option("--output", help="Folder of the study; the same command resumes in it.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE...", help="Changes with dotted keys: tokens=100000.")
    ] = None,
    workers: Annotated[
        str,
        typer.Option(
            "--workers",
            metavar="N",
            help="Cells at a time, each a process with a GPU of its own; auto: one for each GPU.",
        ),
    ] = "1",
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Ray cluster whose nodes run the cells: auto, or HOST:PORT."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", help="Hours, 10h or 30m: the most informative cells first, the rest is named."),
    ] = None,
    halving: Annotated[
        bool,
        typer.Option("--halving", help="All designs with the fewest tokens, the better half with more, and so on."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, shared stages, time, disk and tokens.")
    ] = False,
) -> None:
    """See the module."""
    chosen = read_grid(grid, changes or ())
    hours = None if budget is None else parse_hours(budget)
    count = parse_workers(workers)
    if dry_run:
        with open_workers(count, ray, on_gpus(chosen)) as pool:
            _show(plan_study(chosen, output, workers=pool, budget=hours, halving=halving), chosen.merged)
        return
    console = Console(stderr=True)
    page = run_study(
        chosen, output, workers=count, ray=ray, budget=hours, halving=halving, stage=progress, warn=warn,
        say=lambda what: console.print(Text(what, style="bold")),
    )  # fmt: skip
    Console(soft_wrap=True).print(Text(f"Report: {page}"))


def parse_workers(text: str) -> int | Literal["auto"]:
    """Return a number of workers.

    Raises:
        UserError: it is none.
    """
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise UserError(f"--workers {text!r} is no number of workers. Write 1 or more, or auto.")
    return int(text)


def parse_hours(text: str) -> float:
    """Return a time such as 10h, 1.5h, 30m or 2h30m in hours.

    Raises:
        UserError: it is none.
    """
    number = r"(\d{1,6}(?:\.\d+)?)"
    found = re.fullmatch(f"(?:{number}h)?(?:{number}m)?", text)
    value = float(found[1] or 0) + float(found[2] or 0) / 60 if found else 0.0
    if value <= 0:
        raise UserError(f"--budget {text!r} is no time. Write hours or minutes above 0, such as 10h, 30m or 2h30m.")
    return value


def _show(plan: Plan, merged: int) -> None:
    left = {p.cell.id for p in plan.left_out}
    rows: list[tuple[str | Text, ...]] = []
    for p in plan.cells:
        how = "done" if p.done else "left out" if p.cell.id in left else "to run"
        style = {"done": "green", "left out": "dim"}.get(how, "")
        rows.append((p.cell.id, Text(p.cell.name), Text(how, style=style), f"{p.cell.tokens:,}", f"{p.hours:,.2f}"))
    print_table(("Cell", "Values", "State", "Tokens", "Hours"), rows, words=(1, 2), names=(0,))
    print_table(
        ("Stage", "Needed", "Made once each", "Done"),
        [(name, f"{wanted:,}", f"{distinct:,}", f"{done:,}") for name, wanted, distinct, done in plan.stages],
    )
    lines = [
        f"To run: {len(plan.todo)} cells, {plan.tokens:,.0f} tokens, about {plan.hours:,.2f} hours.",
        f"Disk: {plan.bytes / 1e9:,.2f} GB at most, {plan.free / 1e9:,.2f} GB free.",
        *([f"{merged} combinations are the same control as another one."] if merged else []),
        *([f"Left out, beyond the budget: {len(left)} cells."] if left else []),
        *plan.notes,
    ]
    for line in lines:
        Console().print(Text(line))
