"""Signal, noise and decision accuracy of tasks (Heineman et al. 2025, "Signal and Noise", arXiv 2508.13144).

* Signal: the spread of the models' scores, largest minus smallest.
* Noise: what moves a score though the model is as good as before. Between neighbouring checkpoints of a training it is
  √(mean of squared differences / 2), which a slow trend does not touch (von Neumann 1941); of the choice of documents it is the
  standard error of a difference between two runs, / √2, from their paired bootstrap draws. Both are independent, so that their
  squares add up.
* Decision accuracy: the share of pairs of runs that a task orders as the suite does; a tie is half right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from darumeru.leaderboard.means import draws_of
from darumeru.scoring.aggregate import Floats
from darumeru.scoring.compare import degrees_of_mean, difference, holm
from darumeru.signal.study import Study


@dataclass(frozen=True)
class Measure:
    """What a task tells, and at which cost."""

    task: str
    counts: bool
    """Whether it is part of the suite's score."""
    signal: float
    step_noise: float | None
    """None without a training of three checkpoints."""
    sampling_noise: float | None
    """None where a run's score cannot be resampled."""
    accuracy: float
    """Decision accuracy."""
    accuracy_error: float
    """Its standard error, by the jackknife over runs."""
    documents: int
    tokens: float
    """Read and written, mean over runs."""
    seconds: float | None

    @property
    def noise(self) -> float | None:
        """Return both noises together; None where neither is known."""
        known = [n for n in (self.step_noise, self.sampling_noise) if n is not None]
        return float(np.sqrt(sum(n**2 for n in known))) if known else None

    @property
    def ratio(self) -> float | None:
        """Return signal over noise; None where there is no noise."""
        return self.signal / self.noise if self.noise is not None and self.noise > 1e-6 else None

    def to_json(self) -> dict[str, Any]:
        """Return the measure as a JSON object."""
        return asdict(self) | {"noise": self.noise, "ratio": self.ratio}


@dataclass(frozen=True)
class Summary:
    """The measures of all tasks, and what the suite itself knows of the runs."""

    tasks: list[Measure]
    suite: Measure
    pairs: int
    told_apart: int
    """Pairs of runs whose suite scores differ significantly (paired, Holm-corrected): only these are known to be ordered."""
    checkpoints: int
    """Runs that are checkpoints of a training of three or more."""


def measure(study: Study) -> Summary:
    """Return signal, noise, decision accuracy and cost of each task and of the suite."""
    whole = study.whole()
    runs = [numbers for numbers in study.trainings().values() if len(numbers) >= 3]
    tasks = [_measure(study, task, [task], study.scores(task), whole, runs) for task in study.tasks]
    suite = _measure(study, study.title, study.counted, whole, whole, runs)
    told, pairs = _told_apart(study, whole)
    return Summary(tasks, suite, pairs, told, sum(map(len, runs)))


def _measure(
    study: Study, name: str, tasks: Sequence[str], scores: Floats, whole: Floats, runs: Sequence[Sequence[int]]
) -> Measure:
    seconds = [study.seconds(t) for t in tasks]
    known = [s for s in seconds if s is not None]
    return Measure(
        task=name,
        counts=set(tasks) <= set(study.counted),
        signal=float(np.ptp(scores)),
        step_noise=step_noise(scores, runs),
        sampling_noise=_sampling_noise(study, tasks),
        accuracy=decision_accuracy(scores, whole),
        accuracy_error=_jackknife(scores, whole),
        documents=sum(study.documents(t) for t in tasks),
        tokens=sum(study.tokens(t) for t in tasks),
        seconds=sum(known) if len(known) == len(seconds) else None,
    )


def step_noise(scores: Floats, trainings: Sequence[Sequence[int]]) -> float | None:
    """Return the noise between neighbouring checkpoints, all trainings together.

    Args:
        scores: (M,) of the runs.
        trainings: for each the numbers of its runs, in the order of steps.
    """
    steps = [np.diff(scores[list(numbers)]) for numbers in trainings]
    return float(np.sqrt(np.mean(np.concatenate(steps) ** 2) / 2)) if steps else None


def _sampling_noise(study: Study, tasks: Sequence[str]) -> float | None:
    """Return √(mean over pairs of runs of the variance of their difference / 2), from paired draws."""
    drawn = [draws_of(e, tasks) for e in study.entries]
    known = [d for d in drawn if d is not None]
    if len(known) < len(drawn):
        return None
    draws = np.stack(known)
    m = len(draws)
    # Σ over pairs of Var(x_i - x_j) = M Σ Var(x_i) - Var(Σ x_i)
    pairs = m * draws.var(axis=1, ddof=1).sum() - draws.sum(axis=0).var(ddof=1)
    return float(np.sqrt(max(pairs, 0.0) / (m * (m - 1))))


def decision_accuracy(scores: Floats, whole: Floats) -> float:
    """Return the share of pairs that `scores` orders as `whole` does: a tie in `scores` is half right, one in `whole` no pair.

    Args:
        scores: (M,), or (M, R) for the mean over R samples.
        whole: (M,).

    Returns:
        0.5 where there is no pair.
    """
    i, j = np.triu_indices(len(whole), 1)
    order = np.sign(whole[i] - whole[j])
    if not order.any():
        return 0.5
    seen = np.sign(np.atleast_2d((scores[i] - scores[j]).T))
    right = (1 + seen * order) / 2
    return float(np.average(right.mean(axis=0), weights=np.abs(order)))


def _jackknife(scores: Floats, whole: Floats) -> float:
    """Return the standard error of the decision accuracy over runs: √((M - 1) / M Σ (leave-one-out - their mean)²)."""
    m = len(whole)
    kept = [np.delete(np.arange(m), i) for i in range(m)]
    values = np.array([decision_accuracy(scores[k], whole[k]) for k in kept])
    return float(np.sqrt((m - 1) / m * ((values - values.mean()) ** 2).sum()))


def _told_apart(study: Study, whole: Floats) -> tuple[int, int]:
    """Return how many pairs of runs differ significantly in the suite's score, and how many pairs there are."""
    units = sum(study.entries[0].tasks[t].units for t in study.counted)
    drawn = [[e.tasks[t].draws for t in study.counted] for e in study.entries]
    dfs = [study.entries[0].tasks[t].df for t in study.counted]
    p = []
    for i, j in combinations(range(len(whole)), 2):
        sides = [(a, b) for a, b in zip(drawn[i], drawn[j], strict=True) if a is not None and b is not None]
        if len(sides) < len(dfs):
            p.append(1.0)
            continue
        df = degrees_of_mean([b.astype(np.float64) - a for a, b in sides], dfs)
        first: Floats = np.mean([a for a, _ in sides], axis=0, dtype=np.float64)
        second: Floats = np.mean([b for _, b in sides], axis=0, dtype=np.float64)
        found = difference(float(whole[i]), float(whole[j]), first, second, units, df).p
        p.append(1.0 if found is None else found)
    return sum(value < 0.05 for value in holm(p)), len(p)
