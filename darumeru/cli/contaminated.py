"""`darumeru contaminated`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darumeru.cli.terminal import Json, print_json, quiet
from darumeru.contamination.settings import ContaminationSettings
from darumeru.options import with_options


@with_options(ContaminationSettings)
def contaminated(
    settings: dict[str, Any],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file for all that was found.")] = None,
    as_json: Json = False,
) -> None:
    """Find documents of the benchmark in training texts, and what scores are without them."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console
    from darumeru.contamination.report import to_terminal
    from darumeru.contamination.search import find_contamination
    from darumeru.files import write_json

    with console(stderr=True).status("Reading the benchmark") as status:
        found = find_contamination(
            ContaminationSettings(**settings), lambda texts: status.update(f"{texts:,} texts searched")
        )
    if output:
        write_json(output, found.to_json())
    if as_json:
        print_json(found.to_json())
        return
    console().print(to_terminal(found))
    if output:
        console().print(f"Written: {output}", soft_wrap=True)
