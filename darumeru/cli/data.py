"""`darumeru data`: bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import quiet
from darumeru.data.importers import kinds
from darumeru.errors import UserError


def pull(
    output: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    suite: Annotated[str, typer.Option(help="Suite whose data sets to fetch.")] = "darumeru",
    lock: Annotated[Path | None, typer.Option(help="bundle.json or folder of a run whose revisions to fetch.")] = None,
) -> None:
    """Write an offline bundle from the hub; its bundle.json pins the revisions."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console
    from darumeru.task.pull import pull as pull_data
    from darumeru.task.suite import Catalogue

    with console(stderr=True).status("Fetching data sets"):
        pull_data(Catalogue().suite(suite), output, lock)
    console().print(f"Bundle: {output}. Use it with --data {output}.", soft_wrap=True)


def check(
    folder: Annotated[str, typer.Argument(help="Folder of a bundle, or 'mini'.")],
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks.")] = None,
) -> None:
    """Check a bundle; every fault is named with file, row and field."""
    from darumeru.cli.tables import check_view, console
    from darumeru.task.check import check_folder
    from darumeru.task.suite import Catalogue

    report = check_folder(folder, Catalogue(include_path or ()))
    console().print(check_view(report))
    if report.faults:
        raise UserError(f"{len(report.faults)} faults in '{folder}'.")


def import_(
    kind: Annotated[str, typer.Argument(help=f"Format of the source: {', '.join(kinds())}.")],
    source: Annotated[
        Path, typer.Argument(help="File or folder of the raw data (.jsonl, .jsonl.gz, .json, .csv, .tsv, .txt).")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the bundle to write into.")],
    lang: Annotated[str, typer.Option(help="copy: language of the texts.")] = "ru",
    rows: Annotated[int, typer.Option(help="copy: how many rows of each kind.")] = 500,
    seed: Annotated[int, typer.Option(help="copy: of the choice of texts.")] = 0,
    fewshot: Annotated[int, typer.Option(help="Rows set aside as examples where the source has none.")] = 5,
) -> None:
    """Turn public raw files into a data set of a bundle."""
    from darumeru.cli.tables import console
    from darumeru.data.importers import import_data

    for file in import_data(kind, source, output, lang=lang, rows=rows, seed=seed, fewshot=fewshot):
        console().print(f"Wrote {file}", soft_wrap=True)
