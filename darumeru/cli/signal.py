"""`darumeru signal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import Json, print_json, say
from darumeru.errors import UserError


def signal(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold them.")],
    budget: Annotated[
        str | None,
        typer.Option(help="Choose tasks and documents for that many tokens (200000), or a share of the suite's (10%)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the picture, tables and, with --budget, the chosen suite.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what each task of a suite tells about models, and choose the part that decides best for a budget."""
    from darumeru.cli.tables import console
    from darumeru.extras import need
    from darumeru.signal import budget_of, choose, measure, read_study
    from darumeru.signal.report import suite_name, to_json, to_terminal, write

    if output:
        if output.exists() and not output.is_dir():
            raise UserError(f"--output '{output}' is a file. Give a folder.")
        need("altair", "vl_convert", extra="leaderboard")
    with console(stderr=True).status("Reading runs"):
        study = read_study(runs)
    for problem in study.problems:
        say(f"Left out: {problem.name}: {problem.reason}")
    with console(stderr=True).status("Measuring"):
        summary = measure(study)
        subset = choose(study, budget_of(budget, summary.suite.tokens)) if budget else None
    names = write(study, summary, subset, output) if output else []
    if as_json:
        print_json(to_json(study, summary, subset))
        return
    console().print(to_terminal(study, summary, subset))
    if output:
        console().print(f"Written to {output}: {', '.join(names)}", soft_wrap=True)
        if subset:
            console().print(f"Run it with: --suite {suite_name(study)} --include-path {output}", soft_wrap=True)
