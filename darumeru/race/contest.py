"""A race: rounds of documents, a confidence sequence for each pair of models, verdicts; a model that another beats drops out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from darumeru.errors import DarumeruError, UserError
from darumeru.race.benchmark import RacedTask, Round, blocks_of, rounds_of
from darumeru.race.contestants import Contestant, check_alike
from darumeru.scoring.sequence import ConfidenceSequence

Verdict = Literal["first", "second", "equal", "undecided", "open"]
"""Of a pair: which is better; equal within the margin; undecided when everything was asked; open where one had dropped out."""


@dataclass
class Pair:
    """Two models of a race; differences are the first's score minus the second's."""

    first: str
    second: str
    low: float = -1.0
    high: float = 1.0
    verdict: Verdict = "open"
    documents: int = 0
    """How many both had answered when it was decided, or last."""

    def sentence(self, margin: float | None) -> str:
        """Return the verdict in words."""
        if self.verdict in ("first", "second"):
            better, worse = (self.first, self.second) if self.verdict == "first" else (self.second, self.first)
            return f"{better} is better than {worse}"
        if self.verdict == "equal":
            return f"{self.first} and {self.second} differ by less than {margin:g}"
        if self.verdict == "undecided":
            return f"{self.first} and {self.second}: not decided before everything was asked"
        return f"{self.first} and {self.second}: not decided, one had dropped out"


@dataclass(frozen=True)
class Look:
    """What was known when one looked."""

    documents: int
    """Asked by then."""
    share: float
    """Of the cost of all documents, in tokens."""
    pairs: tuple[tuple[str, str, float, float], ...]
    """(first, second, low, high) of the pairs that still ran."""


@dataclass
class Race:
    """What came of a race."""

    names: list[str]
    tasks: list[dict[str, Any]]
    """Name, metrics, metrics left out, documents, units, units a round."""
    alpha: float
    margin: float | None
    pairs: list[Pair]
    looks: list[Look] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    """Tokens of the documents that each model had to answer, prompts and answers."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of each model's own score, as far as it was asked; each excludes it with a probability of at most alpha."""
    scores: dict[str, float] | None = None
    """The scores of the whole benchmark, once everything was asked of all."""
    remarks: list[str] = field(default_factory=list)
    path: Path | None = None
    """Folder of the record."""

    @property
    def of(self) -> int:
        """Return how many documents the benchmark has."""
        return sum(t["documents"] for t in self.tasks)

    @property
    def documents(self) -> int:
        """Return how many were asked."""
        return self.looks[-1].documents if self.looks else 0

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Return the tasks that count with a part of their metrics, and the metrics that are left out."""
        return {t["name"]: t["left_out"] for t in self.tasks if t["left_out"]}

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object, without the looks."""
        return {
            "names": self.names,
            "alpha": self.alpha,
            "margin": self.margin,
            "documents": self.documents,
            "of": self.of,
            "share_of_tokens": self.looks[-1].share if self.looks else 0.0,
            "tokens": self.tokens,
            "pairs": [asdict(p) | {"sentence": p.sentence(self.margin)} for p in self.pairs],
            "intervals": {name: list(bounds) for name, bounds in self.intervals.items()},
            "scores": self.scores,
            "left_out": self.left_out,
            "remarks": self.remarks,
        }


Report = Callable[[Race], None]
"""Is told after each look."""


def check_settings(alpha: float, margin: float | None) -> None:
    """Refuse what has no meaning.

    Raises:
        UserError: alpha is no probability, or the margin no difference of scores.
    """
    if not 0 < alpha < 1:
        raise UserError(
            f"--alpha {alpha:g} is not possible: give a probability of error between 0 and 1, such as 0.05."
        )
    if margin is not None and not 0 < margin < 1:
        raise UserError(
            f"--margin {margin:g} is not possible: give a difference of scores above 0 and below 1, such as 0.01."
        )


def race(
    contestants: Sequence[Contestant],
    *,
    alpha: float = 0.05,
    margin: float | None = None,
    seed: int = 0,
    report: Report = lambda race: None,
) -> Race:
    """Ask models the documents of a benchmark in a random order until it is decided which is better.

    Scores are those of the whole benchmark: the mean over its tasks. With three or more models each pair has an interval of its
    own, at alpha over the number of pairs, so that all intervals hold together; a model drops out when another is better.

    Args:
        contestants: two or more.
        alpha: probability that any interval ever excludes the true difference.
        margin: differences below it count as equal.
        seed: of the order.
        report: is told after each look.

    Raises:
        UserError: fewer than two models, the same twice, different data or wordings, alpha or margin without meaning.
        DarumeruError: a model could not answer; what was answered is kept.
    """
    check_settings(alpha, margin)
    if len(contestants) < 2:
        raise UserError("A race needs two models or more: name another model folder, or the folder of a finished run.")
    remarks = check_alike(contestants)
    tasks = list(contestants[0].tasks.values())
    cost = {t.name: float(np.mean([c.cost(t.name) for c in contestants])) for t in tasks}
    rounds = rounds_of(tasks, cost, seed)
    names = distinct([c.name for c in contestants])
    facts = [
        {"name": t.name, "metrics": list(t.metrics), "left_out": list(t.left_out), "documents": t.documents,
         "units": len(t.units), "units_a_round": len(rounds[0][t.name])}
        for t in tasks
    ]  # fmt: skip
    found = Race(names, facts, alpha, margin, [Pair(a, b) for a, b in combinations(names, 2)], remarks=remarks)
    state = _State(found, dict(zip(names, contestants, strict=True)), cost)
    for block in blocks_of([sum(map(len, documents_of(tasks, r).values())) for r in rounds]):
        state.look(rounds[block])
        report(found)
        if not state.running:
            break
    state.end()
    return found


@dataclass
class _State:
    race: Race
    contestants: dict[str, Contestant]
    cost: Mapping[str, float]
    running: list[Pair] = field(init=False)
    sequences: dict[tuple[str, str], ConfidenceSequence] = field(init=False)
    own: dict[str, ConfidenceSequence] = field(init=False)
    totals: dict[str, float] = field(init=False)
    documents: int = 0
    spent: float = 0.0

    def __post_init__(self) -> None:
        race = self.race
        self.running = list(race.pairs)
        alpha = race.alpha / len(race.pairs)
        self.sequences = {
            (p.first, p.second): ConfidenceSequence(len(race.tasks), low=-1.0, alpha=alpha) for p in race.pairs
        }
        self.own = {name: ConfidenceSequence(len(race.tasks), alpha=race.alpha) for name in race.names}
        self.totals = dict.fromkeys(race.names, 0.0)
        race.tokens = dict.fromkeys(race.names, 0)

    def look(self, rounds: Sequence[Round]) -> None:
        """Have rounds answered by those that still run, and judge."""
        tasks = next(iter(self.contestants.values())).tasks
        asked = {t: [u for r in rounds for u in r[t]] for t in tasks}
        documents = documents_of(tasks.values(), asked)
        alive = {n for p in self.running for n in (p.first, p.second)}
        answering = [n for n in self.race.names if n in alive]
        for name in answering:
            contestant = self.contestants[name]
            contestant.answer(documents)
            self.race.tokens[name] += sum(contestant.tokens(t, d) for t, ds in documents.items() for d in ds)
        for r in rounds:
            weights = [tasks[t].weights[units] for t, units in r.items()]
            values = {n: [unit_values(self.contestants[n], t, units) for t, units in r.items()] for n in answering}
            for name, found in values.items():
                self.own[name].add(found, weights)
                self.totals[name] += sum(float(w @ v) for w, v in zip(weights, found, strict=True)) / len(tasks)
            for pair in self.running:
                a, b = values[pair.first], values[pair.second]
                self.sequences[pair.first, pair.second].add([x - y for x, y in zip(a, b, strict=True)], weights)
        self.documents += sum(map(len, documents.values()))
        self.spent += sum(self.cost[t] * len(d) for t, d in documents.items())
        for pair in self.running:
            sequence = self.sequences[pair.first, pair.second]
            pair.low, pair.high, pair.documents = float(sequence.low), float(sequence.high), self.documents
        self.race.intervals |= {n: (float(self.own[n].low), float(self.own[n].high)) for n in answering}
        whole = sum(self.cost[t.name] * t.documents for t in tasks.values())
        self.race.looks.append(
            Look(
                self.documents,
                round(self.spent / whole, 6),
                tuple((p.first, p.second, p.low, p.high) for p in self.running),
            )
        )
        self._judge()

    def _judge(self) -> None:
        over = self.documents >= self.race.of
        for pair in self.running:
            if over:
                pair.verdict = "undecided"
            elif pair.low > 0:
                pair.verdict = "first"
            elif pair.high < 0:
                pair.verdict = "second"
            elif self.race.margin is not None and max(-pair.low, pair.high) < self.race.margin:
                pair.verdict = "equal"
        beaten = {
            p.second if p.verdict == "first" else p.first for p in self.race.pairs if p.verdict in ("first", "second")
        }
        self.running = [p for p in self.running if p.verdict == "open" and not beaten & {p.first, p.second}]

    def end(self) -> None:
        """Give the exact scores if everything was asked of all."""
        everything = self.documents >= self.race.of
        if everything and all(p.documents == self.documents for p in self.race.pairs):
            self.race.scores = dict(self.totals)


def documents_of(tasks: Iterable[RacedTask], units: Round) -> dict[str, list[int]]:
    """Return the documents of units, by task."""
    return {t.name: [d for u in units[t.name] for d in t.units[u]] for t in tasks}


def unit_values(contestant: Contestant, task: str, units: Sequence[int]) -> Any:
    """Return what a contestant's answers to units of a task are worth, (units); an exam is worth the sum of its items.

    Raises:
        DarumeruError: a value is outside [0, 1].
    """
    members = contestant.tasks[task].units
    values = np.array([sum(contestant.value(task, d) for d in members[u]) for u in units], dtype=float)
    if values.size and (values.min() < -1e-9 or values.max() > 1 + 1e-9):
        wrong = values[np.argmax(np.abs(values - 0.5))]
        raise DarumeruError(
            f"Task '{task}' cannot be raced: a document is worth {wrong:g}, and only values from 0 to 1 can. "
            "Leave it out with --tasks."
        )
    return values.clip(0.0, 1.0)


def distinct(names: Sequence[str]) -> list[str]:
    """Return names, those that occur twice with a number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
