"""Clean, deduplicate and mix corpora."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from darumeru.options import Command, with_options
from lep.cli.terminal import group, plain, print_table, warn
from lep.corpus.clean import clean_corpus
from lep.corpus.dedup import dedup_corpus
from lep.corpus.mix import Source, mix_corpus

app = group(__doc__)


@app.command("clean", cls=Command)
@with_options(clean_corpus, without="warn")
def clean_command(settings: dict[str, Any]) -> None:
    """Drop metadata, links, markup and badly formatted texts; keep the wanted scripts."""
    report = clean_corpus(**settings, warn=warn)
    rows = [
        (name, tally["changed"], tally["dropped"], tally["lines"], tally["characters"])
        for name, tally in report["measures"]["rules"].items()
    ]
    _show(settings["output"], report, ("rule", "documents changed", "dropped", "lines dropped", "characters"), rows)


@app.command("dedup", cls=Command)
@with_options(dedup_corpus, without="warn")
def dedup_command(settings: dict[str, Any]) -> None:
    """Keep the first of equal or nearly equal documents (MinHash, locality-sensitive hashing)."""
    report = dedup_corpus(**settings, warn=warn)
    rows = [(name, *count.values()) for name, count in report["measures"]["duplicates"].items()]
    _show(settings["output"], report, ("duplicates", "documents", "characters"), rows)


@app.command("mix", cls=Command)
@with_options(mix_corpus, without="sources warn")
def mix_command(
    source: Annotated[
        list[str], typer.Option("--source", metavar="FILE[=WEIGHT]...", help="Texts with their weight, 1 where none.")
    ],
    settings: dict[str, Any],
) -> None:
    """Draw documents from sources in the shares of their weights."""
    report = mix_corpus([Source.parse(each) for each in source], **settings, warn=warn)
    rows = [
        (row["name"], f"{row['wanted_share']:.1%}", f"{row['share']:.1%}", row["documents"], row["characters"],
         row["available_documents"])
        for row in report["measures"]["sources"]
    ]  # fmt: skip
    headings = ("source", "wanted", "share", "documents", "characters", "of documents")
    _show(settings["output"], report, headings, rows)


def _show(
    output: Path, report: Mapping[str, Any], headings: Sequence[str], rows: Sequence[Sequence[str | int]]
) -> None:
    measures = report["measures"]
    console = Console()
    console.print(Text(f"{report['stage']} → {output}", style="bold"))
    print_table(headings, [[plain(value) for value in row] for row in rows])
    for what in ("documents", "characters"):
        kept = measures.get(f"kept_{what}")
        written = (
            f"{measures[what]:,}" if kept is None else f"{kept:,} of {measures[what]:,} ({kept / measures[what]:.1%})"
        )
        console.print(Text(f"  {what}: {written}"))
