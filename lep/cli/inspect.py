"""Say what a folder is and which stages made it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from lep.cli.terminal import LONG, group, plain
from lep.measure import inspection

app = group()


@app.command(help=__doc__)
def inspect_command(
    folder: Annotated[str, typer.Argument(help="Model or tokenizer folder, or hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """See the module."""
    found = inspection.inspect_folder(folder)
    if as_json:
        stages = [{"depth": depth, "role": role, **manifest} for depth, role, manifest in found.stages]
        sys.stdout.write(json.dumps({"facts": found.facts, "stages": stages}, ensure_ascii=False, indent=2) + "\n")
        return
    console = Console()
    for key, value in found.facts.items():
        console.print(Text(f"{key}: {value}"))
    if not found.stages:
        console.print("No lep.json: this folder was not made by lep.")
    for depth, role, manifest in found.stages:
        console.print(Text("  " * depth + f"{role}: {manifest['stage']}, {manifest['created']}", style="bold"))
        for name, entry in manifest["inputs"].items():
            console.print(Text("  " * depth + f"  from {name}: {entry['name']} ({entry['fingerprint'][:26]})"))
        for key, value in {**manifest["settings"], **manifest["measures"]}.items():
            if key not in LONG:
                console.print(Text("  " * depth + f"  {key}: {plain(value)}"))
