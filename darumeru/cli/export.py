"""`darumeru export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru import exports


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[
        str,
        typer.Option("--format", help=f"One of: {', '.join(exports.format_names())}."),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the model there. [the record's]")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files; a format of one text is printed without it.")
    ] = None,
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of the run's further tasks.")] = None,
) -> None:
    """Write a run in a format of other tools: cards, tables, lm-eval, Every Eval Ever, Inspect."""
    folders = include_path or ()
    if output is None:
        print(exports.as_text(run, format_, name=name, include_path=folders), end="")  # noqa: T201
        return
    for file in exports.export(run, format_, output, name=name, include_path=folders):
        print(file)  # noqa: T201
