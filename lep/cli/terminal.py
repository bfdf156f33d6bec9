"""What all commands say to a terminal: tables, manifests, warnings, errors and a progress bar."""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

LONG = {"checks", "added_ids", "losses"}
"""Measures of a manifest that are not shown in full."""

_NARROWEST = 8
"""Characters that a column of words is left with, however narrow the terminal is."""


class Group(TyperGroup):
    """A group whose help shows what its commands say of themselves in full."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the first paragraph of its help."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, " ".join((c.help or "").split("\n\n")[0].split()))
                    for name, c in commands.items()
                    if c is not None
                ]
            )


def group(description: str | None = None) -> typer.Typer:
    """Return a group of commands; its help is plain text, which wraps instead of cutting the names of options."""
    return typer.Typer(
        cls=Group,
        help=description,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    words: Collection[int] = (0,),
    names: Collection[int] = (),
) -> None:
    """Print a table in which no number and no name is cut: columns of words wrap, headings too, and nothing else.

    Args:
        headings: of the columns.
        rows: cells.
        words: columns of words, on the left, which wrap.
        names: columns of names, on the left, which stay whole; all other columns hold numbers, on the right.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    least = 3 * len(headings)  # a space on both sides, and one between columns
    for number, heading in enumerate(headings):
        if number in words:
            table.add_column(heading, overflow="fold")
            least += _NARROWEST
            continue
        cells = [cell.plain if isinstance(cell, Text) else cell for cell in (row[number] for row in rows)]
        width = max(map(len, [*cells, *heading.split()]), default=1)
        side: Literal["left", "right"] = "left" if number in names else "right"
        table.add_column("\n".join(textwrap.wrap(heading, width)), justify=side, no_wrap=True, min_width=width)
        least += width
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    console = Console()
    console.width = max(console.width, least)
    console.print(table, crop=False)


def show(output: str | Path, manifest: Mapping[str, Any]) -> None:
    """Print what a stage wrote and measured."""
    console = Console()
    console.print(Text(f"{manifest['stage']} → {output}", style="bold"))
    for key, value in manifest["measures"].items():
        if key == "checks":
            console.print(Text(f"  {len(value)} invariants hold"))
        elif key not in LONG:
            console.print(Text(f"  {key}: {plain(value)}"))


def plain(value: Any) -> str:
    """Return a value of a manifest as a person reads it: 4 significant digits, thousands apart."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show a bar on stderr; give a function that is told how many of how many are done."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
    with Bar(*columns, *times, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


def quiet_libraries() -> None:
    """Silence libraries, before any is imported: their bars and notices would tear ours apart."""
    for bars in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(bars, "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore", category=FutureWarning)


def is_first() -> bool:
    """Return whether this is the process that speaks, of several under `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


def warn(message: str) -> None:
    """Print a warning on stderr."""
    if is_first():
        Console(stderr=True).print(Text(f"Warning: {message}", style="yellow"))


def fail(message: str, code: int) -> NoReturn:
    """Print an error on stderr and end with an exit code."""
    Console(stderr=True, soft_wrap=True).print(Text("Error: ", style="red") + Text(message))
    sys.exit(code)
