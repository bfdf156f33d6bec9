"""`darumeru run --until "micro_avg ± 0.01"`: documents in a random order until a score is known as exactly as is wanted.

until.json   in the run's folder: goal, estimate, interval, how many documents were asked. The run stays unfinished.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError, unknown
from darumeru.files import write_json
from darumeru.race.benchmark import blocks_of, rounds_of
from darumeru.race.contest import documents_of, unit_values
from darumeru.race.contestants import Contestant
from darumeru.scoring.sequence import ConfidenceSequence

if TYPE_CHECKING:
    from darumeru.task.suite import Suite

MICRO_AVG = "micro_avg"
"""The suite's mean."""

FILE = "until.json"

_GOAL = re.compile(r"\s*([\w-]+)\s*(?:±|\+-|\+/-)\s*(\d*\.?\d+)\s*")


@dataclass(frozen=True)
class Goal:
    """How exactly a score is to be known."""

    metric: str
    """`micro_avg`, a group or a task."""
    half_width: float
    """Of the interval."""

    def __str__(self) -> str:
        return f"{self.metric} ± {self.half_width:g}"

    @classmethod
    def of(cls, text: str) -> Goal:
        """Read `micro_avg ± 0.01`; +- will do.

        Raises:
            UserError: it is not of this form.
        """
        match = _GOAL.fullmatch(text)
        if not match or not 0 < float(match[2]) < 0.5:
            raise UserError(
                f"--until '{text}' is not understood: give a score and half the width of its interval (above 0, below 0.5), "
                "such as 'micro_avg ± 0.01' or 'rucola +- 0.02'."
            )
        return cls(match[1], float(match[2]))

    def tasks(self, suite: Suite) -> tuple[str, ...]:
        """Return the tasks whose mean the score is.

        Raises:
            UserError: the suite has no such score.
        """
        sets = {t: (t,) for t in suite.tasks} | {g.name: g.tasks for g in suite.groups}
        sets |= {MICRO_AVG: suite.counted} if suite.counted else {}
        if self.metric not in sets:
            raise unknown("score of this suite", self.metric, sets)
        return sets[self.metric]


@dataclass
class Reached:
    """What is known of a score."""

    goal: Goal
    title: str
    alpha: float
    of: int
    """Documents that the score has."""
    left_out: dict[str, list[str]]
    """Task → metrics of its score that are no sums over documents and do not count here."""
    run: Path
    documents: int = 0
    estimate: float = 0.5
    low: float = 0.0
    high: float = 1.0
    looks: list[tuple[int, float, float]] = field(default_factory=list)
    """(documents, low, high) whenever one looked."""

    @property
    def met(self) -> bool:
        """Return whether the interval is as narrow as is wanted."""
        return (self.high - self.low) / 2 <= self.goal.half_width

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {**asdict(self), "goal": str(self.goal), "run": self.run.name, "met": self.met}


Report = Callable[[Reached], None]


def run_until(
    contestant: Contestant,
    goal: Goal,
    tasks: Sequence[str],
    *,
    title: str = "",
    alpha: float = 0.05,
    seed: int = 0,
    report: Report = lambda reached: None,
) -> Reached:
    """Ask documents in a random order until a score is known as exactly as is wanted.

    Args:
        contestant: the model.
        goal: of it.
        tasks: whose mean the score is (`Goal.tasks`).
        title: what the score is called.
        alpha: probability that the interval ever excludes the score.
        seed: of the order.
        report: is told after each look.

    Returns:
        The estimate with its interval, which is in until.json of the run's folder too, unless the run was finished before.

    Raises:
        UserError: a task of the score cannot be estimated from a part of its documents.
        DarumeruError: the model could not answer; what was answered is kept.
    """
    if foreign := [t for t in tasks if t not in contestant.tasks]:
        raise UserError(
            f"--until '{goal}': {', '.join(foreign)} is no mean of values from 0 to 1, so a part of the documents does not "
            "bound it. Name another score."
        )
    chosen = [contestant.tasks[t] for t in tasks]
    # The bet that narrows soonest to a half width w is on differences of w.
    sequence = ConfidenceSequence(len(chosen), alpha=alpha, effects=(goal.half_width,))
    left_out = {t.name: list(t.left_out) for t in chosen if t.left_out}
    documents = sum(t.documents for t in chosen)
    reached = Reached(goal, title or goal.metric, alpha, documents, left_out, contestant.run.path)
    rounds = rounds_of(chosen, {t.name: contestant.cost(t.name) for t in chosen}, seed)
    wanted = [documents_of(chosen, asked) for asked in rounds]
    for block in blocks_of([sum(map(len, w.values())) for w in wanted]):
        contestant.answer({t.name: [d for w in wanted[block] for d in w[t.name]] for t in chosen})
        for asked in rounds[block]:
            values = [unit_values(contestant, name, units) for name, units in asked.items()]
            sequence.add(values, [t.weights[asked[t.name]] for t in chosen])
        reached.documents += sum(len(d) for w in wanted[block] for d in w.values())
        reached.low, reached.high = float(sequence.low), float(sequence.high)
        reached.estimate = float(sequence.estimate)
        reached.looks.append((reached.documents, reached.low, reached.high))
        report(reached)
        if reached.met:
            break
    if not contestant.run.complete:
        write_json(contestant.run.path / FILE, reached.to_json())
    return reached
