"""`darumeru publish`: scores and records to the hub, a board to a static host."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import quiet
from darumeru.errors import UserError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def run(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one model.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="REPOSITORY", help="The model's repository on the hub: its card gets the scores."),
    ] = None,
    card: Annotated[Path | None, typer.Option(metavar="FILE", help="A card here, in place of one on the hub.")] = None,
    records: Annotated[
        str | None, typer.Option(metavar="REPOSITORY", help="Data set on the hub that gets the records.")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="Records with their prompts and answers, where the data's licence allows.")
    ] = True,
    dry_run: DryRun = False,
) -> None:
    """Put scores into a model's card and records onto the hub, as pull requests."""
    if to is None and card is None and records is None:
        raise UserError("Say where to: --to REPOSITORY, --card FILE or --records REPOSITORY.")
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console
    from darumeru.files import replacing
    from darumeru.publish.runs import change_card, plan_card, plan_records, text_diff

    # All are planned before the first is done.
    written = change_card(runs, card) if card else None
    changes = [plan_records(runs, records, samples)] if records else []
    changes += [plan_card(runs, to, records)] if to else []
    if card and written:
        old, new = written
        if dry_run:
            print(text_diff(card.name, old, new))  # noqa: T201
        elif old != new:
            with replacing(card) as file:
                file.write(new)
        if not dry_run:
            console().print(f"Card: {card}" + ("" if old != new else " (as it was)"), soft_wrap=True)
    for change in changes:
        if not change.files:
            console().print(f"{change.repository}: nothing to change.", soft_wrap=True)
        elif dry_run:
            print(f"{change.repository}:\n{change.diff()}")  # noqa: T201
        else:
            console().print(f"{change.repository}: {change.open()}", soft_wrap=True)


def board(
    site: Annotated[Path, typer.Argument(help="Folder that 'darumeru leaderboard' wrote.")],
    output: Annotated[Path | None, typer.Option(metavar="FOLDER", help="New folder for the host.")] = None,
    branch: Annotated[str | None, typer.Option(help="Branch of a git repository that shall hold the board.")] = None,
    repository: Annotated[Path, typer.Option(metavar="FOLDER", help="The git repository.")] = Path(),
    dry_run: DryRun = False,
) -> None:
    """Put a board onto a static host: a folder or a branch, with the workflow of GitHub Pages."""
    from darumeru.cli.tables import console
    from darumeru.publish.board import branch_diff, to_branch, to_folder

    if (output is None) == (branch is None):
        raise UserError("Say where to: --output FOLDER or --branch NAME.")
    if output is not None:
        if dry_run:
            raise UserError("--dry-run shows what changes in a branch; a new folder has nothing to change.")
        to_folder(site, output)
        console().print(f"Board: {output}. Any static host can serve it.", soft_wrap=True)
        return
    name = branch or ""
    if dry_run:
        print(branch_diff(site, name, repository) or f"{name}: nothing to change.")  # noqa: T201
        return
    commit, changed = to_branch(site, name, repository)
    if not changed:
        console().print(f"{name}: nothing to change.")
        return
    console().print(f"{name}: {commit[:10]}, {changed.splitlines()[-1].strip()}", soft_wrap=True)
    console().print(f"Push it: git -C {repository} push origin {name}", soft_wrap=True)
