"""Make, check and compare vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from darumeru.errors import DarumeruError
from darumeru.files import write_json
from darumeru.options import Command, with_options
from lep.cli.terminal import group, print_table, show
from lep.vocab.commands import check_folders, extend_vocabulary, optimize_vocabulary, swap_vocabulary
from lep.vocab.report import picture, report_vocabularies
from lep.vocab.train import train_vocabulary

app = group(__doc__)


@app.command("extend", cls=Command)
@with_options(extend_vocabulary)
def extend_command(settings: dict[str, Any]) -> None:
    """Append new tokens to a BPE vocabulary; old tokens and other scripts stay as they are."""
    show(settings["output"], extend_vocabulary(**settings))


@app.command("optimize", cls=Command)
@with_options(optimize_vocabulary)
def optimize_command(settings: dict[str, Any]) -> None:
    """Cut a BPE vocabulary to its most used tokens, then append new ones."""
    show(settings["output"], optimize_vocabulary(**settings))


@app.command("swap", cls=Command)
@with_options(swap_vocabulary)
def swap_command(settings: dict[str, Any]) -> None:
    """Replace the least used tokens by new ones; the size stays, so the model keeps its shape."""
    show(settings["output"], swap_vocabulary(**settings))


@app.command("train", cls=Command)
@with_options(train_vocabulary)
def train_command(settings: dict[str, Any]) -> None:
    """Train a whole new vocabulary with the model's special tokens and chat template."""
    show(settings["output"], train_vocabulary(**settings))


@app.command("check", cls=Command)
@with_options(check_folders, without="old new", defaults={"texts": ()})
def check_command(
    old: Annotated[str, typer.Argument(help="The tokenizer that the new one came from.")],
    new: Annotated[str, typer.Argument(help="The new tokenizer.")],
    settings: dict[str, Any],
) -> None:
    """Check the invariants of a new vocabulary; exit code 1 where one does not hold."""
    checks = check_folders(old, new, **settings)
    marks = {True: Text("holds", style="green"), False: Text("BROKEN", style="red")}
    print_table(
        ("", "invariant", "seen"),
        [(marks[check.passed], check.name, check.detail) for check in checks],
        words=(1, 2),
        names=(0,),
    )
    if not all(check.passed for check in checks):
        raise DarumeruError("The vocabulary breaks an invariant.")


@app.command("report", cls=Command)
@with_options(report_vocabularies, without="models")
def report_command(
    models: Annotated[list[str], typer.Argument(help="Model or tokenizer folders, or hub ids.", metavar="MODEL...")],
    settings: dict[str, Any],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this JSON file.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Write a bar chart to this SVG file.")] = None,
) -> None:
    """Compare tokenizers on texts: symbols per token, fertility, one-token words, unused and strange tokens."""
    report = report_vocabularies(models, **settings)
    rows = [
        (
            row.text, row.tokenizer, f"{row.tokens:,}", f"{row.symbols_per_token:.3f}", f"{row.tokens_per_word:.3f}",
            f"{row.bytes_per_token:.3f}", f"{row.one_token_words:.1%}",
            f"{row.new_tokens_used:,}" if row.new_tokens else "–",
            f"{row.new_tokens - row.new_tokens_used:,}" if row.new_tokens else "–",
        )
        for row in report.rows
    ]  # fmt: skip
    headings = ("text", "tokenizer", "tokens", "symbols per token", "tokens per word", "bytes per token", "one-token words",
                "new used", "new never used")  # fmt: skip
    print_table(headings, rows, words=(0, 1))
    console = Console()
    for name in report.longest:
        console.print(Text(f"{name}: longest {' | '.join(map(repr, report.longest[name]))}"))
        if report.strangest[name]:
            console.print(Text(f"{name}: strangest {' | '.join(map(repr, report.strangest[name]))}"))
    for label, number in {row.text: row.not_nfc for row in report.rows if row.not_nfc}.items():
        console.print(
            Text(f"{label}: {number:,} characters are not in composed form (NFC) and split words in most tokenizers.")
        )
    if json_file is not None:
        write_json(json_file, report.as_json())
    if picture_file is not None:
        picture_file.write_text(picture(report), encoding="utf-8")
