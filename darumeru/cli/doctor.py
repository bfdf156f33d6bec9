"""`darumeru doctor`."""

from __future__ import annotations

import typer

from darumeru.cli.terminal import Json, print_json


def doctor(json: Json = False) -> None:
    """Say which versions, devices and engines are here, what works, and what to do; for bug reports too."""
    from darumeru.doctor import diagnose

    found = diagnose()
    if json:
        print_json(found.to_json())
    else:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        from darumeru.cli.tables import console

        table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("", "", "found", ""):
            table.add_column(column, overflow="fold")
        part = ""
        marks = {"ok": "", "note": "!", "missing": "-", "broken": "BROKEN"}
        for finding in found.findings:
            if part and finding.part != part:
                table.add_section()
            table.add_row(
                Text(finding.part if finding.part != part else ""),
                Text(finding.name),
                Text(finding.value),
                Text(marks[finding.state], "red" if finding.state == "broken" else "yellow"),
            )
            part = finding.part
        screen = console()
        screen.print(table)
        for number, sentence in enumerate(found.advice, start=1):
            screen.print(Text(f"{number}. {sentence}"), soft_wrap=True)
        if not found.advice:
            screen.print("All is well. Next: darumeru demo")
    if not found.works:
        raise typer.Exit(1)
