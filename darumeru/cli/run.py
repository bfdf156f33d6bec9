"""`darumeru run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darumeru.cli.terminal import Json, print_json, progress, quiet
from darumeru.errors import DarumeruError
from darumeru.options import with_options
from darumeru.settings import Settings, settings_of


@with_options(Settings, without="tokenizer training")
def run(
    settings: dict[str, Any],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder under which each run gets a folder.")] = Path(
        "runs"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be evaluated.")] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a model and write the record of the run; an interrupted run resumes."""
    evaluate(settings_of(**settings), output, dry_run, as_json)


def evaluate(settings: Settings, output: Path, dry_run: bool = False, as_json: bool = False) -> None:
    """Evaluate a model and print its scores.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed, or tasks of it did; what was computed is kept.
    """
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console, plan_view, scores_table, time_line
    from darumeru.evaluation import execute, prepare

    with console(stderr=True).status("Building prompts"):
        plan = prepare(settings)
    if dry_run:
        console().print(plan_view(plan))
        if plan.missing:
            raise DarumeruError(f"The data of {', '.join(plan.missing)} cannot be had.")
        return
    with progress(f"{plan.model.name} on {plan.engine}") as report:
        done = execute(plan, output, report)
    if as_json:
        print_json({"run": str(done.path), **done.scores.to_json()})
    else:
        console().print(scores_table(done))
        console().print(time_line(done))
        console().print(f"Record: {done.path}", soft_wrap=True)
    if failed := done.scores.failed:
        raise DarumeruError(
            f"{len(failed)} of {len(done.tasks)} tasks failed ({', '.join(failed)}), so the suite has no mean. "
            "Start the same command again to compute what is missing."
        )
