"""The whole pipeline from one file, from two models to a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from darumeru.errors import DarumeruError
from darumeru.options import Command
from lep.cli.terminal import group, print_table, progress, warn
from lep.pipeline.cost import Estimate, estimate
from lep.pipeline.execution import State, plan, run_recipe
from lep.pipeline.recipe import load_recipe

app = group()


@app.command(cls=Command, help=f"{__doc__} The same command resumes.")
def run_command(
    recipe: Annotated[
        str, typer.Argument(help="Recipe (.yaml), or the name of one that comes with lep: smollm2-ru, …")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the study; the same command resumes in it.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE...", help="Changes with dotted keys: pretrain.max_steps=100."),
    ] = None,
    corpus: Annotated[
        list[str] | None, typer.Option("--corpus", metavar="FILE...", help="Texts, in place of the recipe's.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", help="Run this stage only.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First stage to run.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="Last stage to run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, what it costs and what is missing.")
    ] = False,
    device_name: Annotated[
        str, typer.Option("--device-name", help="Device of the hours in the plan: cpu, a100, h100, …")
    ] = "cpu",
) -> None:
    """See the module."""
    console = Console(stderr=True)
    chosen = load_recipe(recipe, [*(changes or ()), *([f"corpus={json.dumps(corpus)}"] if corpus else [])])
    if dry_run:
        states = plan(chosen, output, only=only, first=first, last=last)
        cost = estimate(chosen, output, states, device_name)
        _show_plan(states, cost)
        if cost.unfit:
            raise DarumeruError("This does not fit. " + " ".join(cost.unfit))
        return
    page = run_recipe(
        chosen, output, only=only, first=first, last=last, stage=progress, warn=warn,
        say=lambda what: console.print(Text(what, style="bold")),
    )  # fmt: skip
    if page is None:
        Console().print("Not all stages are done; the report is written when they are.")
    else:
        Console(soft_wrap=True).print(Text(f"Report: {page}\nLeaderboard: {output / 'leaderboard' / 'index.html'}"))


def _show_plan(states: Sequence[State], cost: Estimate) -> None:
    steps: list[tuple[str | Text, ...]] = []
    for state in states:
        because = "" if state.why.startswith("after ") else f": {state.why}"  # the next column says after what
        how = "done" if state.done else f"{'to run' if state.chosen else 'not asked for'}{because}"
        style = "green" if state.done else "" if state.chosen else "dim"
        given = ", ".join((*state.step.needs, *state.step.given))
        place = state.step.output.parent if state.step.output.suffix else state.step.output
        steps.append((state.step.name, Text(how, style=style), given, f"{place.name}/"))
    print_table(("Step", "State", "From", "Output"), steps, words=(1, 2), names=(0, 3))
    prices = []
    for stage, number, price in [*cost.stages, ("all", sum(number for _, number, _ in cost.stages), cost.total)]:
        hours = None if price.flop is None else cost.device.hours(price.flop)
        size = None if price.bytes is None else price.bytes / 1e9
        memory = None if price.memory is None else price.memory / 1e9
        prices.append(
            (
                stage, str(number), _or_unknown(price.tokens, ",.0f"), _or_unknown(price.flop, ".1e"),
                _or_unknown(hours, ",.2f"), _or_unknown(memory, ",.1f"), _or_unknown(size, ",.2f"),
            )
        )  # fmt: skip
    print_table(
        ("To run", "Steps", "Tokens", "FLOP", f"Hours on {cost.device.name}", "GB of memory", "GB of disk"), prices
    )
    console = Console()
    for note in cost.notes:
        console.print(Text(note))
    for sentence in cost.missing:
        console.print(Text(f"Missing: {sentence}", style="yellow"))


def _or_unknown(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)
