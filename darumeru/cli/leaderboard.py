"""`darumeru leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import say


def leaderboard(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs, or folders that hold them; results of lm-eval or Every Eval Ever with samples too."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder of the site.")],
    baseline: Annotated[str | None, typer.Option(help="Model (name or run id) against which all are held.")] = None,
    published: Annotated[bool, typer.Option(help="Show the paper's results as reference rows.")] = True,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Darumeru",
    about: Annotated[
        Path | None, typer.Option(help="YAML: model name or run id → name, base, vocab, method, note, url.")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="Put the samples into the site, where the data's licence allows.")
    ] = True,
) -> None:
    """Turn runs into tables, figures and a static site with shared ranks, intervals and samples."""
    from darumeru.cli.tables import console
    from darumeru.leaderboard import build

    with console(stderr=True).status("Reading runs"):
        built = build(runs, output, baseline=baseline, published=published, title=title, about=about, samples=samples)
    for problem in built.board.problems:
        say(f"Not shown: {problem.name}: {problem.reason}")
    console().print(f"Leaderboard of {len(built.board.rows)} rows: {built.path / 'index.html'}", soft_wrap=True)
