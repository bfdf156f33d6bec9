"""Carry trained embeddings over to an instruct model."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from darumeru.data.texts import read_all
from darumeru.options import Command, with_options
from lep.cli.terminal import group, show, warn
from lep.propagation.job import propagate

app = group()
_CHARACTERS = 200_000
"""Of the held-out text that `auto` chooses by."""


@app.command(cls=Command, help=f"{__doc__} Everything else of it stays.")
@with_options(propagate, without="texts warn")
def propagate_command(
    settings: dict[str, Any],
    text: Annotated[
        list[str] | None, typer.Option("--text", metavar="FILE...", help="auto: held-out text to choose by.")
    ] = None,
    field: Annotated[str, typer.Option("--field", help="Its field in JSON lines, Parquet and data sets.")] = "text",
) -> None:
    """See the module."""
    texts = read_all(text, field=field, limit=_CHARACTERS) if text else ()
    show(settings["output"], propagate(**settings, texts=texts, warn=warn))
