"""`darumeru compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import Json, listed, print_json


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another; differences are B − A.")],
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks (comma-separated, or repeated).")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for a page, compare.md and compare.json.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a table.")] = False,
    as_json: Json = False,
) -> None:
    """Compare two runs document by document: differences, intervals, p-values, and what flipped."""
    from darumeru.cli.tables import console
    from darumeru.leaderboard.compare import compare as compare_runs
    from darumeru.leaderboard.compare import to_markdown, to_terminal, write_page
    from darumeru.record.run import load_run

    found = compare_runs(load_run(a), load_run(b), listed(task))
    if output:
        write_page(found, output)
    if as_json:
        print_json(found.to_json())
    elif markdown:
        print(to_markdown(found), end="")  # noqa: T201
    else:
        console().print(to_terminal(found))
        if output:
            console().print(f"Page: {output / 'index.html'}", soft_wrap=True)
