"""The curve of a training as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from darumeru.watch.curve import Point
    from darumeru.watch.watcher import Status


def curve_table(status: Status) -> Table:
    """Return the curve of a training as far as it is known: steps, tokens, the suite's mean with its interval, groups."""
    metrics = status.metrics
    table = Table(title=Text(f"{metrics.suite} over the training"), title_justify="left", header_style="bold",
                  box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
    table.add_column("Step", justify="right", no_wrap=True)
    table.add_column("Tokens", justify="right", no_wrap=True)
    means = [n for n in ("micro_avg",) if n in metrics.titles]
    for name in (*means, *metrics.groups):
        table.add_column(Text(metrics.titles[name]), justify="right")
    points = {p.step: p for p in status.points}
    for step in sorted({*points, *status.remarks}):
        point = points.get(step)
        if point is None:
            table.add_row(f"{step:,}", Text(status.remarks[step], "yellow"))
            continue
        tokens = "" if point.tokens_seen is None else f"{point.tokens_seen:,}"
        cells = [_cell(point, name, bounds=True) for name in means] + [_cell(point, n) for n in metrics.groups]
        table.add_row(f"{step:,}", tokens, *cells)
    return table


def _cell(point: Point, name: str, bounds: bool = False) -> str:
    if name not in point.values:
        return "—"
    around = point.bounds.get(name) if bounds else None
    return f"{point.values[name]:.3f}" + (f" [{around[0]:.3f}, {around[1]:.3f}]" if around else "")
