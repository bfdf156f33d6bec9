"""Several models: each evaluated as by itself, one after another, or side by side by workers that they share."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError, UserError
from darumeru.evaluation.execute import OpenEngine, execute, open_planned
from darumeru.evaluation.plan import Plan, prepare
from darumeru.files import read_yaml
from darumeru.inference.asking import Progress
from darumeru.record.run import Run
from darumeru.settings import Settings

if TYPE_CHECKING:
    from darumeru.workers import Pool

MOST_PLANS = 8
"""Models that are planned or answered at once: a plan of the whole suite takes gigabytes."""

Show = Callable[[Plan], Progress]
"""Gives what is told how far a plan has come."""


@dataclass(frozen=True)
class Outcome:
    """What came of one model."""

    settings: Settings
    run: Run | None = None
    fault: Exception | None = None
    """Why there is no run, or no whole one."""

    @property
    def reason(self) -> str:
        """The fault in words."""
        return (
            str(self.fault) if isinstance(self.fault, DarumeruError) else f"{type(self.fault).__name__}: {self.fault}"
        )

    @property
    def line(self) -> str:
        """What came of it, in a sentence."""
        if self.fault or self.run is None:
            return f"{self.settings.model} failed: {self.reason}"
        mean = self.run.scores.suite
        score = "" if mean.value is None else f", {mean.title} {mean.value:.3f}"
        return f"{self.settings.model} is evaluated{score}: {self.run.path}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        told = {"run": str(self.run.path), **self.run.scores.to_json()} if self.run else {"model": self.settings.model}
        return told if self.run or not self.fault else told | {"error": self.reason}


def evaluate_each(each: Sequence[Settings], output: Path, show: Show, pool: Pool | None = None) -> Iterator[Outcome]:
    """Evaluate what each of some settings names; yields what came of it as it is done. One that fails does not stop the others.

    Args:
        each: settings of runs.
        output: the folder under which each run gets a folder of its own.
        show: gives the progress of each.
        pool: the workers that answer; without, this process does, one model after another.
    """
    if pool is None:
        for settings in each:
            yield _outcome(settings, output, show, None)
        return
    waiting: queue.SimpleQueue[Settings] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for settings in each:
        waiting.put(settings)

    def work() -> None:
        while True:
            try:
                settings = waiting.get_nowait()
            except queue.Empty:
                return
            done.put(_outcome(settings, output, show, pool))

    # One more than there are workers: the next model is planned while they answer.
    at_once = min(len(each), pool.size + 1, MOST_PLANS)
    pool.expect(at_once)
    for _ in range(at_once):
        threading.Thread(target=work, name="model", daemon=True).start()
    for left in reversed(range(len(each))):
        outcome = done.get()
        pool.expect(min(left, at_once))
        yield outcome


def _outcome(settings: Settings, output: Path, show: Show, pool: Pool | None) -> Outcome:
    try:
        with pool.planning if pool else nullcontext():
            plan = prepare(settings)
        run = execute(plan, output, show(plan), opened_by(pool))
        failed = run.scores.failed
    except Exception as error:  # whatever it is, it must not end the others
        return Outcome(settings, fault=error)
    if failed:
        fault = DarumeruError(
            f"{len(failed)} of {len(run.tasks)} tasks failed ({', '.join(failed)}), so the suite has no mean. "
            + (
                "Start the same command again to compute what is missing."
                if failed.keys() - plan.unfit
                else "No document of theirs fits the model's context: leave them out with --tasks."
            )
        )
        return Outcome(settings, run, fault)
    return Outcome(settings, run)


def opened_by(pool: Pool | None) -> OpenEngine:
    """Return what brings the model of a plan into an engine: that of this process, or the workers."""
    return open_planned if pool is None else lambda plan: pool.load(plan.opened, plan.max_len)


def read_models(file: Path) -> list[dict[str, Any]]:
    """Read a YAML list of models: folders or hub ids, or mappings of settings of which `model` is one.

    Raises:
        UserError: it is no such list.
    """
    content = read_yaml(file, "--models")
    entries = content if isinstance(content, list) else []
    found = [{"model": entry} if isinstance(entry, str) else entry for entry in entries]
    if not found or not all(isinstance(entry, dict) and isinstance(entry.get("model"), str) for entry in found):
        raise UserError(
            f"--models '{file}' is no list of models: give '- PATH_OR_HUB_ID' for each, or '- model: PATH_OR_HUB_ID' with "
            "settings of its own below it, such as 'dtype: float32'."
        )
    return [{str(key).replace("-", "_"): value for key, value in entry.items()} for entry in found]
