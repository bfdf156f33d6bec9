"""A campaign on the terminal: a bar, a line for what did not hold, a table at the end."""

from __future__ import annotations

import time
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .campaign import Report
from .trial import Result


class Screen:
    """Shows a report as it grows; nothing is drawn between two trials, as threads and forks do not go together.

    Args:
        report: of the campaign.
        seconds: that it shall take.
    """

    def __init__(self, report: Report, seconds: float) -> None:
        self._report, self._seconds, self._began = report, seconds, 0.0
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._bar = Progress(
            *columns,
            console=self._console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("Scenarios are made", total=seconds)

    def __enter__(self) -> Screen:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Say a sentence."""
        self._console.print(Text(text, "dim"))

    def tell(self, result: Result) -> None:
        """Show what came of a trial."""
        self._began = self._began or time.monotonic() - result.seconds
        done, broken = len(self._report.results), len(self._report.broken)
        self._bar.update(
            self._task, description=f"{done} trials, {broken} broken", completed=time.monotonic() - self._began
        )
        self._bar.refresh()
        for wrong in result.wrong:
            self._console.print(
                Text(f"{result.scenario}, {result.fault} ({result.how}), {result.seed}: {wrong}", "red")
            )

    def table(self) -> None:
        """Print how many trials there were of each command and fault; those in which something did not hold after a slash."""
        report = self._report
        commands = sorted({r.scenario for r in report.results})
        table = Table("Fault", *commands, "all", box=box.SIMPLE)
        for fault in sorted({r.fault for r in report.results}):
            counts = [report.count(command, fault) for command in commands]
            total = (sum(n for n, _ in counts), sum(b for _, b in counts))
            table.add_row(fault.replace("_", " "), *map(_cell, [*counts, total]))
        sums = [
            (len(of), sum(bool(r.wrong) for r in of))
            for of in ([r for r in report.results if r.scenario == c] for c in commands)
        ]
        table.add_row("all", *map(_cell, sums), _cell((len(report.results), len(report.broken))), style="bold")
        for column in table.columns:
            column.no_wrap = True
        screen = Console()
        screen.width = max(screen.width, 124)  # all commands side by side
        screen.print(table)
        refused = sum(r.refused for r in report.results)
        screen.print(
            f"{len(report.results)} trials in {report.seconds:.0f} s, seed {report.seed}; {len(report.broken)} broke an "
            f"invariant; {refused} refused a damaged file in a sentence"
        )
        for fault, reason in report.unavailable.items():
            screen.print(f"Not made here: {fault} ({reason})")


def _cell(count: tuple[int, int]) -> str:
    trials, broken = count
    return f"{trials} / {broken}" if broken else str(trials or "")
