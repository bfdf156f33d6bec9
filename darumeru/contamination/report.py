"""What was found of a benchmark in a corpus, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from darumeru.contamination.effect import Effect
from darumeru.contamination.search import Contamination

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN = 5
"""Documents whose place in the corpus the terminal tells."""


def to_terminal(found: Contamination) -> RenderableType:
    """Return the findings for the terminal: tasks, the documents of which most was found, and scores without them."""
    from rich.console import Group
    from rich.text import Text

    table = _table(
        f"{found.suite} in {found.texts:,} texts ({found.characters / 1e6:,.1f} M characters)",
        "Task", "Documents", "Searched", "Found", "Mean share", "Texts",
    )  # fmt: skip
    for name, task in found.tasks.items():
        share = f"{fmean(f.share for f in task.found):.0%}" if task.found else ""
        texts = f"{sum(f.texts for f in task.found):,}" if task.found else ""
        table.add_row(
            Text(name, "" if task.found else "dim"), f"{task.documents:,}", f"{task.searched:,}", f"{len(task.found):,}",
            share, texts,
        )  # fmt: skip
    lines = [
        Text(
            f"Found: {found.words} words in a row in common; so do {found.affected:,} texts. Searched: documents with a text of "
            "so many words; a smaller --words searches more. Share: of a document's runs of words, those in the corpus.",
            "dim",
        )
    ]
    worst = sorted(
        ((f, name) for name, task in found.tasks.items() for f in task.found), key=lambda pair: -pair[0].share
    )
    for one, name in worst[:SHOWN]:
        lines.append(Text(f"{name} {one.id}: {one.share:.0%}, {one.source}, text {one.text}: {one.words}"))
    if len(worst) > SHOWN:
        lines.append(Text(f"… and {len(worst) - SHOWN:,} more: --output FILE or --json has all.", "dim"))
    return Group(table, *lines, *(_effect(run) for run in found.runs))


def _effect(run: Effect) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    table = _table(f"{run.name} without these documents", "", "Left out", "All", "Without", "Without − all", "p")
    for line in run.lines:
        d = line.difference
        bounds = "" if d.low is None or d.high is None else f" [{d.low:+.3f}, {d.high:+.3f}]"
        p = "—" if d.p is None else "< 0.001" if d.p < 0.001 else f"{d.p:.3f}"
        table.add_row(
            Text(line.title, "bold green" if line.name == "suite" else ""), f"{line.without:,} of {line.documents:,}",
            _score(line.all), _score(line.clean), f"{d.value:+.3f}{bounds}", p,
        )  # fmt: skip
    if not run.lines:
        return Group(Text(f"{run.name}: none of its documents was found."), *(Text(r, "yellow") for r in run.remarks))
    return Group(table, *(Text(remark, "yellow") for remark in run.remarks))


def _score(score: Mapping[str, Any]) -> str:
    bounds = "" if score["low"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{score['value']:.3f}{bounds}"


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, "bold"), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table
