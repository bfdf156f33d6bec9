"""Make data to calibrate a model on, and train on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from darumeru.options import Command, with_options
from lep.calibration.copies import CHARACTERS
from lep.calibration.data import make_data
from lep.calibration.recipe import Recipe
from lep.calibration.train import calibrate
from lep.cli.terminal import group, is_first, plain, print_table, progress, show, warn

app = group(__doc__)


@app.command("data", cls=Command)
@with_options(make_data, without="copy_characters progress", defaults={"model": None, "prompts": ()})
def data_command(
    settings: dict[str, Any],
    copy_min: Annotated[
        int, typer.Option("--copy-min", help="Characters of the shortest text to copy or to write on.")
    ] = CHARACTERS[0],
    copy_max: Annotated[
        int, typer.Option("--copy-max", help="Characters of the longest text to copy or to write on.")
    ] = CHARACTERS[1],
) -> None:
    """Let a model answer prompts, have a judge grade the answers, and add texts to copy and to write on."""
    for name in ("settings", "judge_settings"):
        settings[name] = _nested(settings[name] or {})
    with progress("Answers and grades") as bar:
        report = make_data(**settings, copy_characters=(copy_min, copy_max), progress=bar)
    _show_data(settings["output"], report)


@app.command("train", cls=Command)
@with_options(calibrate, without="warn progress changes")
@with_options(Recipe, defaults=dict.fromkeys(Recipe.model_fields), into="changes")
def train_command(changes: dict[str, Any], settings: dict[str, Any]) -> None:
    """Train on chat examples with LoRA and merge the result into a plain model folder."""
    given = {name: value for name, value in changes.items() if value is not None}
    with progress("Calibration") as bar:
        manifest = calibrate(**settings, warn=warn, progress=bar, **given)
    if is_first():
        show(settings["output"], manifest)


def _nested(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with `model_args.KEY` one level down."""
    found: dict[str, Any] = {}
    for name, value in pairs.items():
        outer, dot, inner = name.partition(".")
        if dot:
            found.setdefault(outer, {})[inner] = value
        else:
            found[outer] = value
    return found


def _show_data(output: str | Path, report: Mapping[str, Any]) -> None:
    console = Console()
    console.print(Text(f"{report['output']['rows']:,} examples → {output}", style="bold"))
    for key, value in report["counts"].items():
        console.print(Text(f"  {key.replace('_', ' ')}: {value:,}"))
    if report["grades"]:
        console.print(Text(f"  grades: {plain(report['grades'])}"))
    if report["copies"]:
        console.print(Text(f"  texts to copy and to write on: {plain(report['copies'])}"))
    rows = [
        (
            source, f"{found['examples']:,}", f"{found['words']['median']:g}",
            ", ".join(f"{name} {share:.0%}" for name, share in found["scripts"].items()),
            f"{found['other_script_than_prompt']:,}", f"{found['refusals']:,}",
        )
        for source, found in report["data"].items()
    ]  # fmt: skip
    headings = ("source", "examples", "words (median)", "scripts", "other script", "refusals")
    print_table(headings, rows, words=(0, 3))
