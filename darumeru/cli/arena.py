"""`darumeru arena`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darumeru.arena.settings import ArenaSettings
from darumeru.cli.terminal import Json, print_json, progress, quiet
from darumeru.errors import DarumeruError
from darumeru.options import with_options


@with_options(ArenaSettings, without="models")
def arena(
    models: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Models to compare, two or more: --models A B.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="MODEL", help="Further models.")] = None,
    *,
    settings: dict[str, Any],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder under which each arena gets a folder.")] = Path(
        "arenas"
    ),
    as_json: Json = False,
) -> None:
    """Let models answer prompts and a judge compare the answers pair by pair, in both orders; an interrupted arena resumes."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.arena import arena as hold
    from darumeru.arena.views import to_terminal
    from darumeru.cli.tables import console

    done = hold([*(models or ()), *(more or ())], output=output, stage=progress, **settings)
    scores = done.scores
    if as_json:
        print_json({"arena": str(done.path), **scores})
    else:
        console().print(to_terminal(done))
        console().print(f"Record: {done.path} (page: {done.path / 'index.html'})", soft_wrap=True)
    if failed := scores["failed"]:
        who, why = next(iter(failed.items()))
        raise DarumeruError(
            f"{len(failed)} requests failed, so not all pairs are judged; the first: {who}: {why}. "
            "Start the same command again to compute what is missing."
        )
