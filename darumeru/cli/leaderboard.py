"""`darumeru leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from darumeru.cli.terminal import say
from darumeru.errors import UserError


def leaderboard(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of runs, or folders that hold them; results of lm-eval or Every Eval Ever with samples too."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Folder of the site; with --serve a temporary one if it is left out.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Model (name or run id) against which all are held.")] = None,
    published: Annotated[bool, typer.Option(help="Show the paper's results as reference rows.")] = True,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Darumeru",
    about: Annotated[
        Path | None, typer.Option(help="YAML: model name or run id → name, base, vocab, method, note, url.")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="Put the samples into the site, where the data's licence allows.")
    ] = True,
    url: Annotated[
        str | None, typer.Option(help="Address at which the site will be, for the links of its feed.")
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve the site at a local address and build it again when a record changes."),
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="With --serve: where to listen; 0.0.0.0 lets others read it. [127.0.0.1]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="With --serve: its port, 0 for any free one. [8321]")] = None,
) -> None:
    """Turn runs into tables, figures and a static site with shared ranks, intervals and samples."""
    settings: dict[str, Any] = {
        "baseline": baseline, "published": published, "title": title, "about": about, "samples": samples, "url": url,
    }  # fmt: skip
    if serve:
        _serve(runs, output, host, port, settings)
        return
    if output is None:
        raise UserError("Give --output FOLDER for the site, or --serve to look at it at a local address.")
    if host is not None or port is not None:
        raise UserError("--host and --port say where --serve listens: add --serve, or leave them out.")
    _build(runs, output, settings)


def _build(runs: list[Path], output: Path, settings: dict[str, Any]) -> None:
    from darumeru.cli.tables import console
    from darumeru.leaderboard import build

    with console(stderr=True).status("Reading runs"):
        built = build(runs, output, **settings)
    for remark in built.remarks:
        say(remark)
    console().print(f"Leaderboard of {len(built.board.rows)} rows: {built.path / 'index.html'}", soft_wrap=True)


def _serve(runs: list[Path], output: Path | None, host: str | None, port: int | None, settings: dict[str, Any]) -> None:
    from darumeru.cli.tables import console
    from darumeru.leaderboard import served
    from darumeru.leaderboard.live import HOST, PORT

    with served(runs, output, host=host or HOST, port=PORT if port is None else port, report=say, **settings) as live:
        console().print(f"Leaderboard at {live.address}; Ctrl-C ends it.", soft_wrap=True)
        live.follow()
