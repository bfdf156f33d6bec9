"""`darumeru import-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def import_run(
    results: Annotated[
        Path,
        typer.Argument(help="lm-eval's results_DATE.json, a record of Every Eval Ever, or a folder that holds one."),
    ],
    output: Annotated[Path, typer.Option(help="Folder under which the run gets a folder.")] = Path("runs"),
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks of ours.")] = None,
) -> None:
    """Make a run's record of another tool's results with samples."""
    from darumeru.cli.tables import console, scores_table
    from darumeru.cli.terminal import say
    from darumeru.imports import import_run as make_record

    run = make_record(results, output, include_path or ())
    console().print(scores_table(run))
    for task, reason in run.scores.failed.items():
        say(f"Left out: {task}: {reason}.")
    print(run.path)  # noqa: T201
