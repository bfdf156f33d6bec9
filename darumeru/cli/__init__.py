"""The command `darumeru`: each command is one call of one public function, and a file here. Heavy imports happen inside."""

from __future__ import annotations

import typer

from darumeru.cli import arena, compare, data, demo, export, leaderboard, records, run, watch
from darumeru.cli.terminal import Debug, guarded, show_tracebacks

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


@app.callback()
def _options(debug: Debug = False) -> None:
    show_tracebacks(debug)


for command in (
    run.run,
    arena.arena,
    watch.watch,
    records.show,
    records.rescore,
    leaderboard.leaderboard,
    compare.compare,
    export.export,
    demo.demo,
):
    app.command()(guarded(command))
app.command("list")(guarded(records.list_))
app.add_typer(data_app, name="data")
data_app.command()(guarded(data.pull))
data_app.command()(guarded(data.check))
data_app.command("import")(guarded(data.import_))


def main() -> None:
    """Run the command line."""
    app()
