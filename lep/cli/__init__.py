"""The command `lep`: a file for each command, imported when it is asked for, so that `lep --help` answers at once."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand

from darumeru.errors import DarumeruError, end_at_once, of_system
from darumeru.extras import need
from darumeru.version import Version
from lep.cli.terminal import Group, fail, quiet_libraries

COMMANDS = ("vocab", "corpus", "init", "pretrain", "propagate", "calibrate", "run", "study", "inspect")
"""Modules of this folder in the order of the help; each has an `app`, and its docstring is what its help says."""


class Commands(Group):
    """A group of commands that are known by their docstrings until one is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name=name, help=description(name)) for name in COMMANDS}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the command that the arguments name, and hand it over."""
        if args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)


@app.callback()
def _lep(_: Version = False) -> None:
    """Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it.

    Add --debug to any command to see where it failed.
    """


def description(name: str) -> str:
    """Return the docstring of a command's module, without importing it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def load(name: str) -> Any:
    """Import a command, a `TyperCommand` or a group of them."""
    need("regex", extra="lep")
    return typer.main.get_command(importlib.import_module(f"lep.cli.{name}").app)


def main() -> NoReturn:
    """Run the command line: 0 where all went well, 2 for mistakes of the user, 1 for failures."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    quiet_libraries()
    try:
        app(arguments, prog_name="lep", standalone_mode=True)
    except DarumeruError as error:
        if debug:
            raise
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        end_at_once()
        fail("Stopped; the output was not written. The same command resumes from journals and checkpoints.", 130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and (told := of_system(error)):
            fail(str(told), told.exit_code)
        kept = "Checkpoints are kept" if arguments[:1] in (["pretrain"], ["run"], ["study"]) else "Nothing was written"
        fail(f"{type(error).__name__}: {error}. {kept}; add --debug to see where.", 1)
    finally:
        end_at_once()
    sys.exit(0)


__all__ = ["app", "main"]
