"""Callbacks around the steps of a training: the end of a part, seconds, the history file, the line on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

from darumeru.files import dumps, write_jsonl
from lep.measure.held_out import BITS, SHARE
from lep.pretraining.measures import KERNEL

if TYPE_CHECKING:
    from lep.pretraining.trainer import PretrainTrainer


class Flow(TrainerCallback):  # type: ignore[misc]
    """Ends a part of a schedule at its last step, and logs whenever a checkpoint is written, so that both agree.

    Args:
        stop: the last step.
        measures: whether each checkpoint is measured, since the best is chosen by that.
    """

    def __init__(self, stop: int, *, measures: bool = False) -> None:
        self.stop, self.measures = stop, measures

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """See the class."""
        if state.global_step >= self.stop:
            control.should_training_stop = True
        if control.should_training_stop:
            control.should_evaluate = control.should_save = True
        if control.should_save:
            control.should_log = True
            control.should_evaluate |= self.measures


class Clock(TrainerCallback):  # type: ignore[misc]
    """Counts the seconds of training steps, without evaluation and saving."""

    def __init__(self) -> None:
        self.trainer: PretrainTrainer | None = None
        self.began = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seconds go on from those that the log of an earlier session, or part of the schedule, ended with."""
        if self.trainer is not None:
            spent = max((entry.get("seconds", 0.0) for entry in state.log_history), default=0.0)
            self.trainer._trained_seconds = spent
            self.trainer._counted = (state.num_input_tokens_seen, spent)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step begins."""
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step ends."""
        if self.trainer is not None:
            self.trainer._trained_seconds += time.perf_counter() - self.began


class LossKernel(TrainerCallback):  # type: ignore[misc]
    """Notes in the log, which checkpoints keep, what computes the loss from this step on: a resumed training may have another."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note it where it is new."""
        known = [entry[KERNEL] for entry in state.log_history if KERNEL in entry]
        if known[-1:] != [self.name]:
            state.log_history.append({KERNEL: self.name, "step": state.global_step})


class History(TrainerCallback):  # type: ignore[misc]
    """Everything that is logged, one JSON object a line; after a restart the lines of lost steps are gone."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin with what the checkpoint knows."""
        if state.is_world_process_zero:
            write_jsonl(self.file, state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add a line."""
        if state.is_world_process_zero:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(dumps(state.log_history[-1]) + "\n")


class Bar(TrainerCallback):  # type: ignore[misc]
    """A line on stderr: step, loss, tokens per second, memory, bits per byte."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.told: dict[str, float] = {}
        self.progress: Progress | None = None
        self.task: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show it."""
        if state.is_world_process_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self.progress.start()
            self.task = self.progress.add_task(self.what, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move it."""
        if self.progress is not None:
            self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Tell."""
        self.told |= logs or {}
        if self.progress is not None:
            self.progress.update(self.task, description=f"{self.what} {_line(self.told)}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take it away."""
        self.close()

    def close(self) -> None:
        """Take it away, whatever happened."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def _line(told: dict[str, float]) -> str:
    shown = (
        ("loss", "loss {:.3f}"),
        ("tokens_per_second", "{:,.0f} tokens/s"),
        ("memory_gb", "{:.1f} GB"),
        (f"eval_{BITS}", "{:.3f} bits/byte"),
        (f"eval_{SHARE}", "{:.0%} new tokens"),
    )
    return ", ".join(form.format(told[key]) for key, form in shown if key in told)


@contextmanager
def closing(bars: Sequence[Bar]) -> Iterator[None]:
    """Take the bars away at the end, so that a message is not written over."""
    try:
        yield
    finally:
        for bar in bars:
            bar.close()
