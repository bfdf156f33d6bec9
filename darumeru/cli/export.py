"""`darumeru export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.errors import unknown


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[str, typer.Option("--format", help="model-index, badge, markdown or latex.")],
    name: Annotated[str | None, typer.Option(help="Name of the model on its card. [the record's]")] = None,
) -> None:
    """Print a run's scores as a model card's results, a README's badge or table, or LaTeX."""
    from darumeru.leaderboard import tables
    from darumeru.record.run import load_run

    formats = {"badge": tables.badge, "markdown": tables.run_markdown, "latex": tables.run_latex}
    if format_ not in (*formats, "model-index"):
        raise unknown("format", format_, (*formats, "model-index"))
    loaded = load_run(run)
    text = tables.model_index(loaded, name) if format_ == "model-index" else formats[format_](loaded)
    print(text, end="")  # noqa: T201
