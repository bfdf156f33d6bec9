"""Common parts of all commands: errors in one sentence, progress, JSON, and libraries kept quiet."""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import PackageNotFoundError
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from darumeru.errors import DarumeruError, end_at_once, of_system

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", is_eager=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --debug, and have its errors end it with one sentence and the right exit code."""
    debug_option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)

    @wraps(command)
    def wrapper(*, debug: bool = False, **given: Any) -> None:
        show_tracebacks(debug)
        with errors():
            command(**given)

    hints = get_type_hints(command, include_extras=True)
    parameters = [
        p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()
    ]
    wrapper.__signature__ = inspect.Signature([*parameters, debug_option])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*parameters, debug_option)}
    return wrapper


def show_tracebacks(debug: bool) -> None:
    """Show tracebacks from here on, in child processes too."""
    if debug:
        os.environ["DARUMERU_DEBUG"] = "1"


@contextmanager
def errors() -> Iterator[None]:
    """Say in one sentence what went wrong and end with the right exit code."""
    debug = bool(os.environ.get("DARUMERU_DEBUG"))
    try:
        yield
    except DarumeruError as error:
        if debug:
            raise
        say(f"Error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        end_at_once()
        say("Interrupted. What was computed is kept: the same command resumes from here.")
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and (told := of_system(error)):
            say(f"Error: {told}")
            raise typer.Exit(told.exit_code) from None
        if isinstance(error, PackageNotFoundError) and error.name == "darumeru":
            say("Error: this copy of Darumeru is not installed. In its folder run: pip install -e .")
            raise typer.Exit(1) from None
        say(f"Error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        say("This should not happen; --debug shows where it did. What was computed is kept.")
        raise typer.Exit(1) from None


def say(text: str) -> None:
    """Print a remark, beside what a program may read."""
    print(text, file=sys.stderr)  # noqa: T201


def print_json(content: Any) -> None:
    """Print JSON for another program."""
    print(json.dumps(content, ensure_ascii=False, indent=2))  # noqa: T201


def listed(values: Iterable[str] | None) -> list[str]:
    """Return values that were given comma-separated, or repeated."""
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def quiet() -> None:
    """Silence libraries: their bars and notices would tear ours apart, which tell the same."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Show a progress bar on stderr."""
    with bars() as bar_of:
        yield bar_of(title)


@contextmanager
def bars(state: Callable[[], str] | None = None) -> Iterator[Callable[[str], Progress]]:
    """Show progress bars on stderr, one for each title that is asked for.

    Args:
        state: what stands behind the bars, as often as they are drawn.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from darumeru.cli.tables import console

    class State(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"· {state()}" if state else "", "dim")

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    times = (TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, *times, State(), console=console(stderr=True), transient=True) as bar:
        first = bar.add_task("Building prompts", total=None)

        def bar_of(title: str) -> Any:
            bar.update(first, visible=False)
            task = bar.add_task(title, total=None)

            def report(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)

            return report

        yield bar_of
