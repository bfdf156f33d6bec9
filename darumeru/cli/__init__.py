"""The command `darumeru`: each command is one call of one public function, and a file here. Heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Callable

import typer

from darumeru.cli import (
    arena,
    compare,
    contaminated,
    data,
    demo,
    doctor,
    export,
    gate,
    import_run,
    leaderboard,
    publish,
    race,
    records,
    run,
    signal,
    watch,
)
from darumeru.cli.terminal import Debug, guarded, show_tracebacks
from darumeru.errors import end_at_once
from darumeru.options import Command
from darumeru.version import Version

# Plain help: click wraps it to the terminal, where rich cuts long names of options off.
app = typer.Typer(
    name="darumeru",
    help="Evaluate language models adapted to Russian: offline, with intervals, every sample on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Make and check offline bundles of data.", no_args_is_help=True, rich_markup_mode=None)

publish_app = typer.Typer(
    help="Put results where others see them: the hub, a static host.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def _options(debug: Debug = False, _: Version = False) -> None:
    show_tracebacks(debug)


def _add(group: typer.Typer, command: Callable[..., None], name: str | None = None) -> None:
    # Without its own short help, the list of commands cuts sentences short.
    group.command(name, cls=Command, short_help=command.__doc__)(guarded(command))


_add(app, run.run)
_add(app, arena.arena)
_add(app, race.race)
_add(app, watch.watch)
_add(app, records.list_, "list")
_add(app, records.show)
_add(app, records.rescore)
_add(app, leaderboard.leaderboard)
_add(app, compare.compare)
_add(app, contaminated.contaminated)
_add(app, gate.gate)
_add(app, signal.signal)
_add(app, export.export)
_add(app, import_run.import_run, "import-run")
_add(app, demo.demo)
_add(app, doctor.doctor)
_add(data_app, data.pull)
_add(data_app, data.check)
_add(data_app, data.import_, "import")
_add(publish_app, publish.run)
_add(publish_app, publish.board)
app.add_typer(data_app, name="data")
app.add_typer(publish_app, name="publish")


def main() -> None:
    """Run the command line."""
    try:
        app()
    finally:
        end_at_once()
