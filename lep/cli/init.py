"""Give a model a new vocabulary: embeddings and head from the old ones."""

from __future__ import annotations

from typing import Any

from darumeru.options import Command, with_options
from lep.cli.terminal import group, show, warn
from lep.initialisation.job import initialise

app = group()


@app.command(cls=Command, help=__doc__)
@with_options(initialise, without="warn")
def init_command(settings: dict[str, Any]) -> None:
    """See the module."""
    show(settings["output"], initialise(**settings, warn=warn))
