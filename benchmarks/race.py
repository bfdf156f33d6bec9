"""What a race costs and how often it errs, by simulation: the 17 tasks with their sizes, exams, subjects and costs.

    python benchmarks/race.py [--quick] [--output FILE] [--picture docs/race-error.svg]

Two models answer a made-up benchmark of the real structure; orders are drawn many times, and at every look the race and a
naive rule look at the difference. Nothing is loaded; needs altair for the picture. Compared are

* the error at no true difference: how often either ever declares a winner, from the third look on until everything is asked;
* the share of the tokens that a race spends until it has decided, for true differences of 0.5 to 10 points, beside the power of
  an ordinary test on a random subset of the same cost, looked at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from interval_coverage import CATEGORIES, SUBJECTS

from darumeru.race.benchmark import RacedTask, blocks_of, raced_task, round_sizes
from darumeru.scoring.aggregate import Aggregate, Floats, Table, category_mean, cluster_sum, mean
from darumeru.scoring.sequence import EFFECTS, ConfidenceSequence

# Documents, tokens of one with its answer (SmolLM2-135M-Instruct without examples), and how much two models' values differ
# beside a 0/1 choice.
TASKS: dict[str, tuple[int, int, str]] = {
    "rummlu": (10033, 299, "choice"), "mmlu_ru": (14042, 275, "subjects"), "mmlu_en": (14042, 121, "subjects"),
    "multiq": (1056, 878, "graded"), "parus": (400, 503, "choice"), "rcb": (438, 299, "choice"), "rwsd": (606, 242, "choice"),
    "use": (2626, 681, "exam"), "ruopenbookqa": (2338, 286, "choice"), "ruworldtree": (115, 281, "choice"),
    "rucola": (2787, 269, "choice"), "sum_abstractive": (500, 1410, "graded"), "sum_extractive": (500, 858, "graded"),
    "cp_sent_en": (4915, 107, "graded"), "cp_para_en": (4915, 421, "graded"), "cp_sent_ru": (4915, 307, "graded"),
    "cp_para_ru": (4915, 1445, "graded"),
}  # fmt: skip
EXAM = 26
"""Items of an exam."""

FLIPS = {"two models": 0.30, "two variants of one model": 0.08}
"""Share of choices that only one of the two answers rightly."""

DIFFERENCES = (0.005, 0.01, 0.02, 0.05, 0.10)
Z = 1.959964


@dataclass(frozen=True)
class Population:
    """Differences of two models on every unit, and the true difference of their scores."""

    tasks: list[RacedTask]
    values: list[Floats]
    cost: dict[str, float]

    @property
    def truth(self) -> float:
        """Return the difference of the scores of the whole benchmark."""
        return float(np.mean([t.weights @ v for t, v in zip(self.tasks, self.values, strict=True)]))

    @property
    def tokens(self) -> float:
        """Return the cost of the whole benchmark."""
        return sum(self.cost[t.name] * t.documents for t in self.tasks)


def structure(name: str, size: int, kind: str) -> RacedTask:
    """Return a task with its units and weights, as a race finds them."""
    nothing: list[str | None] = [None] * size
    aggregate: Aggregate = {"subjects": category_mean, "exam": cluster_sum}.get(kind, mean)
    clusters: list[str | None] = [str(i // EXAM) for i in range(size)] if kind == "exam" else nothing
    strata: list[str | None] = (
        [f"{c}/{i}" for i, (c, n) in enumerate(zip(CATEGORIES, SUBJECTS, strict=True)) for _ in range(n)]
        if kind == "subjects"
        else nothing
    )
    table = Table.build({}, nothing, nothing, clusters, strata)
    return raced_task(name, range(size), table, {"m": aggregate}, ["m"])


def population(rng: np.random.Generator, tasks: list[RacedTask], difference: float, flips: float) -> Population:
    """Make up two models whose scores differ by `difference`, by a little more in some tasks and less in others."""
    shifts = rng.normal(0, 0.015, len(tasks))
    shifts += difference - shifts.mean()
    values = []
    for task, shift in zip(tasks, shifts, strict=True):
        kind, units = TASKS[task.name][2], len(task.units)
        shift = float(np.clip(shift, -flips, flips))
        if kind in ("choice", "subjects"):
            v = rng.choice([-1.0, 0.0, 1.0], p=[(flips - shift) / 2, 1 - flips, (flips + shift) / 2], size=units)
        else:
            v = np.clip(rng.normal(shift, (0.06 if kind == "exam" else 0.25) * np.sqrt(flips / 0.3), units), -1, 1)
        values.append(v)
    cost = {n: float(c) for n, (_, c, _) in TASKS.items()}
    made = Population(tasks, values, cost)
    # Exactly the difference: the graded tasks take what chance has added.
    graded = [i for i, t in enumerate(tasks) if TASKS[t.name][2] == "graded"]
    rest = (difference - made.truth) * len(tasks) / len(graded)
    for i in graded:
        values[i] = np.clip(values[i] + rest, -1, 1)
    return made


@dataclass
class Step:
    """State of many races when one looks."""

    share: float
    """Of the tokens of the whole benchmark."""
    low: Floats
    high: Floats
    z: Floats
    """Of an ordinary test on a random subset of this size."""
    z_finite: Floats
    """The same with the correction for a finite benchmark: it tests what the race decides, the score of the whole benchmark."""
    over: bool


class Test:
    """An ordinary test of a difference of means over tasks, on documents drawn with equal probability.

    Scores of what was asked as a run with --limit would give them, and their variances, documents (exams) being independent.
    """

    def __init__(self, rng: np.random.Generator, made: Population, runs: int) -> None:
        self.made = made
        self.order = [rng.permuted(np.tile(np.arange(len(v), dtype=np.int32), (runs, 1)), axis=1) for v in made.values]
        self.start = np.zeros(len(made.tasks), dtype=int)
        self.sums = np.zeros((4, runs, len(made.tasks)))  # of w, w v, w² v, w² v²
        self.squares = np.zeros((runs, len(made.tasks)))  # of w²

    def add(self, sizes: dict[str, int]) -> tuple[Floats, Floats]:
        """Ask as many more units of each task; z of each race, as for a sample of endlessly many documents, and of these ones."""
        for k, task in enumerate(self.made.tasks):
            chosen = self.order[k][:, self.start[k] : self.start[k] + sizes[task.name]]
            self.start[k] += sizes[task.name]
            v, w = self.made.values[k][chosen], task.weights[chosen]
            self.sums[:, :, k] += np.stack([w, w * v, w**2 * v, w**2 * v**2]).sum(axis=2)
            self.squares[:, k] += (w**2).sum(axis=1)
        weight, total, first, second = self.sums
        mean_ = total / weight
        correction = self.start / np.maximum(self.start - 1, 1)
        variance = correction * (second - 2 * mean_ * first + mean_**2 * self.squares) / weight**2
        left = 1 - self.start / np.array([len(t.units) for t in self.made.tasks])
        with np.errstate(divide="ignore", invalid="ignore"):
            plain, finite = (
                np.nan_to_num(mean_.sum(axis=1) / np.sqrt(np.maximum(v, 0).sum(axis=1)))
                for v in (variance, variance * left)
            )
        return plain, finite


def races(
    rng: np.random.Generator, made: Population, runs: int, low: float = -1.0, effects: Sequence[float] = EFFECTS
) -> Iterator[Step]:
    """Race in many random orders at once."""
    order = []
    for task in made.tasks:
        times = rng.exponential(size=(runs, len(task.units))) / task.weights
        order.append(np.argsort(times, axis=1).astype(np.int32))
    sequence, test = ConfidenceSequence(len(made.tasks), low, effects=effects, shape=(runs,)), Test(rng, made, runs)
    start, spent = dict.fromkeys(made.cost, 0), 0.0
    rounds = round_sizes(made.tasks, made.cost)
    items = {t.name: t.documents // len(t.units) for t in made.tasks}
    blocks = blocks_of([sum(items[n] * size for n, size in sizes.items()) for sizes in rounds])
    for block in blocks:
        for sizes in rounds[block]:
            values, weights = [], []
            for k, task in enumerate(made.tasks):
                chosen = order[k][:, start[task.name] : start[task.name] + sizes[task.name]]
                start[task.name] += sizes[task.name]
                values.append(made.values[k][chosen])
                weights.append(task.weights[chosen])
                spent += chosen.shape[1] * made.cost[task.name] * items[task.name]
            sequence.add(values, weights)
            z = test.add(sizes)
        yield Step(spent / made.tokens, sequence.low, sequence.high, *z, block is blocks[-1])


def errors(
    rng: np.random.Generator, tasks: list[RacedTask], flips: float, populations: int, runs: int
) -> dict[str, Any]:
    """How often a winner is declared where there is none, from the third look on."""
    curve: dict[float, list[tuple[float, float]]] = {}
    missed, naive, raced = [], [], []
    for _ in range(populations):
        made = population(rng, tasks, 0.0, flips)
        by_naive, by_race, miss = (np.zeros(runs, dtype=bool) for _ in range(3))
        for number, step in enumerate(races(rng, made, runs), start=1):
            if step.over:
                break  # now both know
            if number >= 3:
                by_naive |= np.abs(step.z) > Z
            by_race |= (step.low > 0) | (step.high < 0)
            miss |= (step.low > made.truth + 1e-9) | (step.high < made.truth - 1e-9)
            curve.setdefault(round(step.share, 6), []).append((float(by_naive.mean()), float(by_race.mean())))
        missed.append(miss.mean())
        naive.append(by_naive.mean())
        raced.append(by_race.mean())
    points = [
        {"share": share, "naive": float(np.mean([n for n, _ in p])), "race": float(np.mean([r for _, r in p]))}
        for share, p in sorted(curve.items())
    ]
    found = {"naive": float(np.mean(naive)), "race": float(np.mean(raced)), "missed": float(np.mean(missed))}
    every = max(1, len(points) // 80)  # what a picture needs
    return {"races": populations * runs, **found, "curve": [*points[:20], *points[20::every]]}


def costs(
    rng: np.random.Generator,
    tasks: list[RacedTask],
    difference: float,
    flips: float,
    runs: int,
    margin: float | None = None,
) -> dict[str, Any]:
    """What a race spends until it has decided, and what a test on a random subset of that cost would find."""
    made = population(rng, tasks, difference, flips)
    share = np.ones(runs)
    done, right = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    tested: list[tuple[float, float]] = []
    for step in races(rng, made, runs):
        tested.append((step.share, float((step.z_finite > Z).mean())))
        if step.over:
            break
        equal = np.maximum(-step.low, step.high) < margin if margin is not None else np.zeros(runs, dtype=bool)
        now = ~done & ((step.low > 0) | (step.high < 0) | equal)
        share[now] = step.share
        right |= now & ((step.low > 0) if difference > 0 else equal)
        done |= now
        if done.all():
            break
    spent = float(share.mean())
    subset = max((t for t in tested if t[0] <= spent), default=tested[0])
    return {
        "difference": difference, "margin": margin, "decided": float(done.mean()), "wrong": float((done & ~right).mean()),
        "share": spent, "share_90": float(np.quantile(share, 0.9)), "power_of_subset": subset[1], "smallest": tested[0][0],
    }  # fmt: skip


def goals(rng: np.random.Generator, tasks: list[RacedTask], half_width: float, runs: int) -> dict[str, Any]:
    """What `run --until "micro_avg ± half_width"` asks of one model, and how often its interval misses the score."""
    kinds = [TASKS[t.name][2] for t in tasks]
    values = [
        rng.beta(1.5, 1.5, len(t.units)) if kind == "graded"
        else rng.normal(0.3, 0.1, len(t.units)).clip(0, 1) if kind == "exam"
        else (rng.random(len(t.units)) < rng.uniform(0.3, 0.8)).astype(float)
        for t, kind in zip(tasks, kinds, strict=True)
    ]  # fmt: skip
    made = Population(tasks, values, {n: float(c) for n, (_, c, _) in TASKS.items()})
    share, done, missed = np.ones(runs), np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for step in races(rng, made, runs, low=0.0, effects=(half_width,)):
        now = ~done & ((step.high - step.low) / 2 <= half_width)
        share[now], done = step.share, done | now
        missed |= now & ((step.low > made.truth) | (step.high < made.truth))
        if done.all():
            break
    return {"half_width": half_width, "share": float(share.mean()), "missed": float(missed.mean())}


def picture(found: dict[str, Any]) -> str:
    """Error of both rules against the share of the tokens that was spent, as SVG."""
    import altair as alt
    import vl_convert

    names = {"naive": "stop when the 95 % interval excludes zero", "race": "race"}
    rows = [
        {"rule": title, "share": 100 * p["share"], "error": 100 * p[key]}
        for key, title in names.items()
        for p in found["curve"]
    ]
    x = alt.X(
        "share:Q",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(title="tokens spent, % of the whole suite", grid=False, format="~g"),
    )
    y = alt.Y("error:Q", axis=alt.Axis(title="wrong winner declared by then, %", tickCount=6))
    colour = alt.Color("rule:N", sort=list(names.values()), legend=alt.Legend(title=None, orient="top", labelLimit=400))
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2.2).encode(x=x, y=y, color=colour)
    level = alt.Chart(alt.Data(values=[{"y": 5}])).mark_rule(strokeDash=[5, 4]).encode(y="y:Q")
    chart = alt.layer(lines, level).properties(width=560, height=260)
    config = {
        "background": "#fffdf9", "font": "Helvetica Neue, Arial, sans-serif", "view": {"stroke": None},
        "range": {"category": ["#b3392b", "#2f6f8f"]},
        "axis": {"labelColor": "#2b2520", "titleColor": "#2b2520", "gridColor": "#e7dfd3", "domain": False},
    }  # fmt: skip
    return str(vl_convert.vegalite_to_svg(chart.to_dict() | {"config": config}))


def main() -> None:
    """Run the simulations and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the races")
    parser.add_argument("--output", type=Path, help="all figures as JSON")
    parser.add_argument("--picture", type=Path, help="the error of both rules as SVG")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began, rng = time.perf_counter(), np.random.default_rng(given.seed)
    tasks = [structure(name, size, kind) for name, (size, _, kind) in TASKS.items()]
    populations, runs = (4, 50) if given.quick else (10, 200)
    rounds = round_sizes(tasks, {n: float(c) for n, (_, c, _) in TASKS.items()})
    found: dict[str, Any] = {"rounds": len(rounds), "first_round": rounds[0]}
    print("No true difference\n\n| | races | naive rule errs | race errs | interval misses |")
    print("|---|---|---|---|---|")
    for name, flips in FLIPS.items():
        e = found[f"errors, {name}"] = errors(rng, tasks, flips, populations, runs)
        print(f"| {name} | {e['races']:,} | {e['naive']:.1%} | {e['race']:.1%} | {e['missed']:.1%} |", flush=True)
    print(
        "\n| | true difference | decided early | wrong | tokens, mean | tokens, 90 % of races | subset of that cost, power |"
    )
    print("|---|---|---|---|---|---|---|")
    runs = 50 if given.quick else 200
    for name, flips in FLIPS.items():
        for difference in DIFFERENCES:
            if difference > flips:
                continue
            c = costs(rng, tasks, difference, flips, runs)
            found.setdefault(f"costs, {name}", []).append(c)
            print(
                f"| {name} | {100 * difference:g} points | {c['decided']:.0%} | {c['wrong']:.1%} | {c['share']:.1%} | "
                f"{c['share_90']:.1%} | {c['power_of_subset']:.0%} |",
                flush=True,
            )
        for margin in (0.02, 0.01):
            c = costs(rng, tasks, 0.0, flips, runs, margin)
            found.setdefault(f"margins, {name}", []).append(c)
            print(
                f"| {name} | none, margin {100 * margin:g} points | {c['decided']:.0%} | {c['wrong']:.1%} | {c['share']:.1%} | "
                f"{c['share_90']:.1%} | |",
                flush=True,
            )
    print("\n| one model, until Micro-Avg is known | tokens, mean | interval misses |\n|---|---|---|")
    for half_width in (0.05, 0.02, 0.01, 0.005):
        g = goals(rng, tasks, half_width, runs)
        found.setdefault("goals", []).append(g)
        print(f"| ± {100 * half_width:g} points | {g['share']:.1%} | {g['missed']:.1%} |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.picture:
        given.picture.write_text(picture(found["errors, two models"]), encoding="utf-8")


if __name__ == "__main__":
    main()
