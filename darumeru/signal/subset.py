"""The tasks, and documents of them, that order models best as the whole suite does for a budget of tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np

from darumeru.errors import UserError
from darumeru.record.draws import aggregates_of
from darumeru.record.sample import Sample, table_of
from darumeru.scoring.aggregate import Aggregate, Floats
from darumeru.scoring.bootstrap import seed_of
from darumeru.signal.measure import decision_accuracy
from darumeru.signal.study import FEWEST, Study

SAMPLES = 40
"""Random samples of documents over which a decision accuracy is averaged."""
SMALLEST = 5
"""Documents of a task, at least."""


@dataclass(frozen=True)
class Chosen:
    """A part of a suite: its tasks with their numbers of documents."""

    limits: dict[str, int]
    tokens: float
    """That it takes, mean over runs."""
    accuracy: float
    """Decision accuracy on the runs given, mean over samples of documents."""


@dataclass(frozen=True)
class Subset:
    """What was chosen for a budget, and what it is worth on runs that it was not chosen by."""

    budget: int
    whole: float
    """Tokens of the whole suite."""
    chosen: Chosen
    left_out: list[float]
    """For each training, and each run of none: the share of its pairs with others that a part chosen without it orders as the
    suite does."""
    uniform: Chosen
    """The whole suite with one limit for all tasks, for the same budget: nothing in it was fitted."""
    uniform_pairs: list[float]
    """For each of the same: the share of its pairs that `uniform` orders as the suite does."""
    pairs: int
    """Of runs."""

    @property
    def accuracy(self) -> float:
        """Return the decision accuracy by cross-validation, a training or run left out at a time."""
        return float(np.mean(self.left_out))

    @property
    def uniform_accuracy(self) -> float:
        """Return the decision accuracy of `uniform` on the same pairs."""
        return float(np.mean(self.uniform_pairs))

    @property
    def error(self) -> float:
        """Return its standard error over what was left out."""
        return float(np.std(self.left_out, ddof=1) / math.sqrt(len(self.left_out)))

    @property
    def better(self) -> bool:
        """Return whether the choice beats the one limit by more than two standard errors, and by one pair at least."""
        gains = np.subtract(self.left_out, self.uniform_pairs)
        error = float(np.std(gains, ddof=1)) / math.sqrt(len(gains))
        return float(gains.mean()) > max(2 * error, 1 / self.pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the subset as a JSON object."""
        found = {"accuracy": self.accuracy, "accuracy_error": self.error, "uniform_accuracy": self.uniform_accuracy}
        return asdict(self) | found | {"better": self.better}


def budget_of(text: str, whole: float) -> int:
    """Return a budget in tokens from what a user gives: a number of them, or a percentage of the whole suite.

    Raises:
        UserError: it is neither, or not between 0 and the whole.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip().replace("_", ""))
    tokens = 0.0 if match is None else float(match[1]) * (whole / 100 if match[2] else 1)
    if not 0 < tokens < whole:
        raise UserError(
            f"--budget {text}: give tokens of one evaluation, such as 200000, or a share of the suite's, such as 10%; "
            f"the whole suite takes {whole:,.0f}."
        )
    return int(tokens)


def choose(study: Study, budget: int) -> Subset:
    """Choose the part of a suite with the best decision accuracy for a budget.

    Greedily: that task is added, or given more documents, which gains most decision accuracy a token; where none gains any, the
    one that gains most reliability a token without a loss of accuracy, until nothing fits or helps.
    What a limit of n documents decides is the mean over random samples of n, whole clusters as `--limit` takes them. The same
    search without one training or run at a time, held against its pairs, says what a choice is worth for a model not seen.

    Args:
        study: the runs.
        budget: tokens that one evaluation may take.

    Raises:
        UserError: no task's smallest sample fits into the budget.
    """
    options = _options(study)
    whole = study.whole()
    everyone = tuple(range(len(whole)))
    chosen = _search(options, whole, everyone, budget)
    if not chosen:
        cheapest = min(min(o.tokens) for o in options.values())
        raise UserError(
            f"No task fits into a budget of {budget:,} tokens: {SMALLEST} documents of the cheapest take {cheapest:,.0f}."
        )
    families = _families(study)
    left_out = []
    for family in families:
        part = _search(options, whole, [r for r in everyone if r not in family], budget)
        left_out.append(_accuracy_of(family, _score(options, part), whole))
    total = sum(study.tokens(t) for t in study.counted)
    uniform, scores = _uniform(study, options, whole, budget)
    plain = [_accuracy_of(family, scores, whole) for family in families]
    count = len(whole) * (len(whole) - 1) // 2
    return Subset(budget, total, _chosen(options, chosen, whole), left_out, uniform, plain, count)


def _families(study: Study) -> list[list[int]]:
    """Return the runs that are left out together: a training's checkpoints, which resemble each other; single runs else.

    Where there are fewer than three, each run is left out on its own.
    """
    trainings = list(study.trainings().values())
    inside = {run for runs in trainings for run in runs}
    families = [*trainings, *([run] for run in range(len(study.entries)) if run not in inside)]
    return families if len(families) >= FEWEST else [[run] for run in range(len(study.entries))]


@dataclass(frozen=True)
class _Option:
    """A task with growing numbers of documents."""

    sizes: list[int]
    tokens: list[float]
    values: list[Floats]
    """For each size (M, R) scores on R samples of documents, the same for all runs."""


def _options(study: Study) -> dict[str, _Option]:
    found = {}
    for task in study.counted:
        count = study.documents(task)
        sizes = [count]
        while sizes[-1] // 2 >= SMALLEST:
            sizes.append(sizes[-1] // 2)
        values = [_sampled(study, task, size) for size in sizes]
        known = [(s, v) for s, v in zip(sizes, values, strict=True) if v is not None][::-1]
        each = study.tokens(task) / count
        found[task] = _Option([s for s, _ in known], [s * each for s, _ in known], [v for _, v in known])
    return found


def _sampled(study: Study, task: str, size: int) -> Floats | None:
    """Return (M, R) scores on samples of documents; None where the samples do not give the recorded scores."""
    if size == study.documents(task):
        return np.repeat(study.scores(task)[:, None], SAMPLES, axis=1)
    runs = study.samples[task]
    aggregates: list[dict[str, Aggregate]] = []
    for rows, result in zip(runs, study.results(task), strict=True):
        primary = (*result.record.primary, "bits", "bytes")
        known = aggregates_of(result.record, table_of(rows, primary))
        if known is None:
            return None
        aggregates.append(known)
    rng = np.random.default_rng(seed_of("signal", task, size))
    picks = [_pick(runs[0], size, rng) for _ in range(SAMPLES)]
    values = np.empty((len(runs), SAMPLES))
    for i, (rows, known) in enumerate(zip(runs, aggregates, strict=True)):
        for r, pick in enumerate(picks):
            table = table_of([rows[p] for p in pick], (*known, "bits", "bytes"))
            values[i, r] = np.mean([f(table, n, table.ones())[0] for n, f in known.items()])
    return study.sign(task) * values


def _pick(rows: Sequence[Sample], size: int, rng: np.random.Generator) -> list[int]:
    """Return the places of a random sample of documents, whole clusters until there are enough, as `--limit` takes them."""
    clusters: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        clusters.setdefault(row.cluster or f"\0{place}", []).append(place)
    members = list(clusters.values())
    chosen: list[int] = []
    for number in rng.permutation(len(members)):
        if len(chosen) >= size:
            break
        chosen += members[number]
    return sorted(chosen)


def _score(options: Mapping[str, _Option], part: Mapping[str, int]) -> Floats:
    """Return (M, R) means over the tasks of a part; `part` gives each task's size by its number."""
    means: Floats = np.mean([options[t].values[level] for t, level in part.items()], axis=0)
    return means


def _tokens(options: Mapping[str, _Option], part: Mapping[str, int]) -> float:
    return sum(options[t].tokens[level] for t, level in part.items())


def _search(options: Mapping[str, _Option], whole: Floats, runs: Sequence[int], budget: float) -> dict[str, int]:
    """Return task → number of its size: the greedy choice by these runs."""
    kept = list(runs)
    part: dict[str, int] = {}
    accuracy, reliability, spent = 0.5, 0.0, 0.0
    while True:
        rated = []
        for task, option in options.items():
            for level in range(part.get(task, -1) + 1, len(option.sizes)):
                move = part | {task: level}
                cost = _tokens(options, move)
                if cost <= budget:
                    scores = _score(options, move)[kept]
                    gains = (decision_accuracy(scores, whole[kept]) - accuracy, _reliability(scores) - reliability)
                    rated.append((gains, cost, move))
        better = [r for r in rated if r[0][0] > _EVEN]
        surer = [r for r in rated if r[0][0] > -_EVEN and r[0][1] > _EVEN]
        # The first task is taken even where it orders no better than a coin.
        moves, gain = (better, 0) if better else (surer, 1) if surer or part else (rated, 0)
        if not moves:
            return part
        gains, cost, part = max(moves, key=lambda m: m[0][gain] / (m[1] - spent))
        accuracy, reliability, spent = accuracy + gains[0], reliability + gains[1], cost


_EVEN = 1e-12


def _reliability(scores: Floats) -> float:
    """Return the share of the variance of (M, R) scores that is between runs, not between samples of documents."""
    between, within = float(scores.mean(axis=1).var(ddof=1)), float(scores.var(axis=1, ddof=1).mean())
    return between / (between + within) if between > 0 else 0.0


def _accuracy_of(family: Sequence[int], scores: Floats, whole: Floats) -> float:
    """Return the share of pairs between runs of a family and others that (M, R) scores order as the suite does."""
    others = [i for i in range(len(whole)) if i not in family]
    return float(np.mean([decision_accuracy(scores[[i, j]], whole[[i, j]]) for i in family for j in others]))


def _chosen(options: Mapping[str, _Option], part: Mapping[str, int], whole: Floats) -> Chosen:
    ordered = {task: options[task].sizes[part[task]] for task in options if task in part}
    return Chosen(ordered, _tokens(options, part), decision_accuracy(_score(options, part), whole))


def _uniform(study: Study, options: Mapping[str, _Option], whole: Floats, budget: float) -> tuple[Chosen, Floats]:
    """Return the whole suite with the largest common limit that the budget allows, and its (M, R) scores."""
    each = {t: study.tokens(t) / study.documents(t) for t in options}

    @cache
    def tokens(limit: int) -> float:
        return sum(min(limit, study.documents(t)) * each[t] for t in options)

    limit = 1
    while limit < max(study.documents(t) for t in options) and tokens(limit + 1) <= budget:
        limit += 1
    limits = {t: min(limit, study.documents(t)) for t in options}
    sampled = [_sampled(study, t, n) for t, n in limits.items()]
    known = [s for s in sampled if s is not None]
    means: Floats = np.mean(known, axis=0)
    return Chosen(limits, tokens(limit), decision_accuracy(means, whole)), means
