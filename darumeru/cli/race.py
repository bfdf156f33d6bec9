"""`darumeru race`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darumeru.cli.terminal import Json, print_json, quiet
from darumeru.options import with_options
from darumeru.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from darumeru.race.contest import Pair, Race, Report

OF_ONE_MODEL = "model revision adapter base_url served_model api_key_env approximate tokenizer training"
"""Settings of a run that a race of several models cannot have."""


@with_options(Settings, without=f"{OF_ONE_MODEL} likelihood exact")
def race(
    models: Annotated[list[str], typer.Argument(help="Model folders, hub ids, or folders of finished runs.")],
    settings: dict[str, Any],
    alpha: Annotated[float, typer.Option(help="Probability that a verdict is wrong.")] = 0.05,
    margin: Annotated[float | None, typer.Option(help="Scores that differ by less count as equal.")] = None,
    output: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder under which runs and race get folders.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Ask models documents in a random order until it is clear which is better; looking at any time is allowed."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console
    from darumeru.race.start import race_models

    with _live(not as_json) as report:
        found = race_models(models, output=output, alpha=alpha, margin=margin, report=report, **settings)
    if as_json:
        print_json({"race": str(found.path), **found.to_json()})
        return
    console().print(race_table(found))
    for line in closing_lines(found):
        console().print(line, soft_wrap=True)


@contextmanager
def _live(shown: bool) -> Iterator[Report]:
    """Show the table of a race as it changes, on a terminal."""
    from rich.live import Live

    from darumeru.cli.tables import console

    screen = console(stderr=True)
    live = Live(console=screen, refresh_per_second=4, transient=True) if shown and screen.is_terminal else None

    def report(found: Race) -> None:
        if live is not None:
            live.update(race_table(found))

    with live or nullcontext():
        yield report


def race_table(found: Race) -> Table:
    """Return a line for each pair: what is known of the difference, and the verdict."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    share = f", {100 * found.looks[-1].share:.0f} % of the tokens" if found.looks else ""
    table = Table(
        title=Text(f"{found.documents:,} of {found.of:,} documents asked{share}"),
        title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    table.add_column("Difference", overflow="fold")
    table.add_column(f"{100 * (1 - found.alpha):g} % interval", justify="right", no_wrap=True)
    table.add_column("Documents", justify="right", no_wrap=True)
    table.add_column("Verdict", overflow="fold")
    styles = {"first": "bold green", "second": "bold green", "equal": "bold cyan"}
    for pair in found.pairs:
        verdict = Text(_verdict(pair, found), styles.get(pair.verdict, "yellow"))
        table.add_row(
            Text(f"{pair.first} − {pair.second}"),
            f"[{pair.low:+.3f}, {pair.high:+.3f}]",
            f"{pair.documents:,}",
            verdict,
        )
    return table


def _verdict(pair: Pair, found: Race) -> str:
    if pair.verdict == "open" and pair.documents == found.documents:
        return "open"
    return pair.sentence(found.margin)


def closing_lines(found: Race) -> list[str]:
    """Return what a reader should know beside the table."""
    lines = []
    if found.scores:
        scores = ", ".join(f"{name} {score:.4f}" for name, score in found.scores.items())
        lines.append(f"Everything was asked; the scores are exact: {scores}.")
    else:
        scores = ", ".join(f"{name} [{low:.3f}, {high:.3f}]" for name, (low, high) in found.intervals.items())
        lines.append(f"Scores of the whole benchmark, each within: {scores}.")
    if found.left_out:
        parts = "; ".join(f"{task} without {', '.join(metrics)}" for task, metrics in found.left_out.items())
        lines.append(f"Counted with accuracy alone, since their other metric is no sum over documents: {parts}.")
    lines += found.remarks
    if found.path:
        lines.append(f"Race: {found.path}")
    return lines
