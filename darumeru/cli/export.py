"""`darumeru export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="badge, markdown, latex, model-index, hf-eval-results, lm-eval, every-eval-ever or inspect.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the model there. [the record's]")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files; a format of one text is printed without it.")
    ] = None,
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of the run's further tasks.")] = None,
) -> None:
    """Write a run in a format of other tools: cards, tables, lm-eval, Every Eval Ever, Inspect."""
    from darumeru.exports import as_text
    from darumeru.exports import export as export_run

    if output is None:
        print(as_text(run, format_, name=name, include_path=include_path or ()), end="")  # noqa: T201
        return
    for file in export_run(run, format_, output, name=name, include_path=include_path or ()):
        print(file)  # noqa: T201
