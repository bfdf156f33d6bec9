"""`darumeru watch`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darumeru.cli.terminal import quiet, say
from darumeru.errors import DarumeruError
from darumeru.options import with_options
from darumeru.watch.settings import WatchSettings

if TYPE_CHECKING:
    from darumeru.watch.watcher import Report, Status


@with_options(WatchSettings)
def watch(
    checkpoints: Annotated[Path, typer.Argument(help="Output folder of a training, which holds checkpoint-N.")],
    settings: dict[str, Any],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder under which each run gets a folder.")] = Path(
        "runs"
    ),
) -> None:
    """Evaluate each checkpoint of a training as it comes, in a process of its own; survives restarts of either side."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.watch.watcher import watch as watch_folder

    with _curve() as report:
        outcome = watch_folder(checkpoints, output=output, report=report, **settings)
    for step, reason in outcome.unfinished.items():
        say(f"checkpoint-{step} is not whole and was left out: {reason}.")
    if outcome.fired:
        say(f"STOP is written to '{checkpoints}'; the evidence is in '{output / 'rules.jsonl'}'.")
        raise typer.Exit(3)
    if outcome.failed:
        raise DarumeruError(
            f"{len(outcome.failed)} checkpoints could not be evaluated: "
            + "; ".join(f"checkpoint-{step} ({reason})" for step, reason in outcome.failed.items())
        )
    if not outcome.points:
        say(f"'{checkpoints}' holds no checkpoint-N.")


@contextmanager
def _curve() -> Iterator[Report]:
    """Show the curve of a watch: live on a terminal, else the events as lines and the table at the end."""
    from rich.live import Live
    from rich.text import Text

    from darumeru.cli.tables import console
    from darumeru.watch.table import curve_table

    screen = console()
    last: list[Status] = []
    live = Live(console=screen, refresh_per_second=2) if screen.is_terminal else None

    def report(status: Status) -> None:
        last[:] = [status]
        if status.event:
            screen.print(Text(status.event), soft_wrap=True)
        if live is not None:
            live.update(curve_table(status))

    with live or nullcontext():
        yield report
    if live is None and last:
        screen.print(curve_table(last[0]))
