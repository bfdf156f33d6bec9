"""`darumeru gate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import Json, print_json
from darumeru.errors import UserError


def gate(
    policy: Annotated[Path | None, typer.Argument(help="YAML file of the rules.", show_default=False)] = None,
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run.", show_default=False)] = None,
    baseline: Annotated[Path | None, typer.Option(help="Folder of the run that it may not fall behind.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for gate.md and gate.json.")] = None,
    template: Annotated[bool, typer.Option("--template", help="Print a policy to begin with.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print Markdown, for a pull request, instead of a table.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide whether a run meets a policy: exit code 0 GO, 3 NO-GO, 4 INCONCLUSIVE."""
    from darumeru.cli.tables import console
    from darumeru.gate import TEMPLATE, Verdict, read_policy
    from darumeru.gate import gate as decide
    from darumeru.gate.report import to_markdown, to_terminal, write
    from darumeru.record.run import load_run

    if template:
        print(TEMPLATE.read_text(encoding="utf-8"), end="")  # noqa: T201
        return
    if policy is None or run is None:
        raise UserError(
            "Give a policy and a run: darumeru gate POLICY.yaml RUN. --template prints a policy to begin with."
        )
    found = decide(read_policy(policy), load_run(run), load_run(baseline) if baseline else None)
    if output:
        write(found, output)
    if as_json:
        print_json(found.to_json())
    elif markdown:
        print(to_markdown(found), end="")  # noqa: T201
    else:
        console().print(to_terminal(found))
        if output:
            console().print(f"Summary: {output / 'gate.md'}", soft_wrap=True)
    code = {Verdict.GO: 0, Verdict.NO_GO: 3, Verdict.INCONCLUSIVE: 4}[found.verdict]
    if code:
        raise typer.Exit(code)
