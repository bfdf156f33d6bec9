"""Do the intervals cover? Simulated tasks of the sizes, strata and clusters of the real ones.

    python benchmarks/interval_coverage.py [--quick] [--simulations 500] [--seed 0] [--only WORD] [--write]

Scores are computed by the functions of `darumeru.scoring` that runs use, on documents whose true score is known: coverage of the
95 % intervals and their mean width; for differences and shared ranks, which are made of the same draws, the share of false
findings between equal models and of true ones between unequal models. Beside each figure stands the earlier method: percentiles
of a bootstrap that draws n of n. A data set costs a matrix product, as draws depend on the structure alone and are shared.
`--write` puts the figures into results/coverage.json.xz and the tables into docs/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.scoring.aggregate import (
    Aggregate,
    Floats,
    Ints,
    Table,
    bits_per_byte,
    category_mean,
    cluster_sum,
    f1_macro,
    matthews,
    mean,
)
from darumeru.scoring.bootstrap import degrees_of_freedom, resample, units
from darumeru.scoring.compare import (
    bootstrap_test,
    degrees_of_mean,
    difference,
    holm,
    mid_p_test,
    paired_shares,
    shared_ranks,
    sign_test,
)
from darumeru.scoring.draws import draw, mean_of
from darumeru.scoring.estimate import Estimate, estimate, estimate_mean

DOCS = Path(__file__).parents[1] / "docs" / "statistics.md"
RESULTS = Path(__file__).parent / "results" / "coverage.json.xz"
RESAMPLES = 1000
SIZES = (10, 20, 30, 50, 100, 400)

SUBJECTS = (
    100, 135, 152, 100, 265, 144, 100, 100, 100, 173, 102, 100, 235, 114, 145, 378, 126, 100, 310, 203, 100, 165, 198, 193, 390,
    270, 238, 151, 545, 216, 204, 237, 223, 131, 121, 108, 163, 112, 103, 234, 100, 783, 346, 895, 306, 311, 324, 282, 1534, 272,
    612, 110, 245, 201, 100, 166, 171,
)  # fmt: skip
"""Questions of MMLU's 57 subjects, in the order of the alphabet."""
CATEGORIES = "sosoossssossscsshossshcccscscshhochhhsoooohhohhohocccccoh"
"""Their categories: STEM, humanities, social sciences, other."""


# -- documents whose true score is known --------------------------------------------------------------------------------

Maker = Callable[[np.random.Generator, int], Table]


@dataclass(frozen=True)
class Case:
    """A kind of score: how documents are made and what it is of all documents that could be made."""

    name: str
    make: Maker
    metrics: Mapping[str, Aggregate]
    truth: float
    sizes: tuple[int, ...] = SIZES
    unit: str = "documents"
    fixed: bool = True
    """Whether all data sets of a size have one structure, so that draws can be shared."""


def table(
    columns: Mapping[str, Floats],
    labels: tuple[Ints, Ints, int] | None = None,
    clusters: Ints | None = None,
    strata: Ints | None = None,
) -> Table:
    """Return a table of columns; without clusters each document is one, without strata there is one."""
    n = len(next(iter(columns.values())))
    gold, pred, k = labels or (np.full(n, -1), np.full(n, -1), 0)
    return Table(
        dict(columns), gold, pred, [str(i) for i in range(k)],
        np.arange(n) if clusters is None else clusters,
        np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1],
        [""] if strata is None else [f"{CATEGORIES[i]}/{i}" for i in np.unique(strata)],
    )  # fmt: skip


def plain(values: Callable[[np.random.Generator, int], Floats]) -> Maker:
    """Return documents with independent values."""
    return lambda rng, n: table({"x": values(rng, n)})


def labelled(gold_share: Sequence[float], right: Sequence[float]) -> Maker:
    """Return documents whose label i is chosen rightly with probability right[i], else another at random."""
    k = len(gold_share)

    def make(rng: np.random.Generator, n: int) -> Table:
        gold = rng.choice(k, n, p=gold_share)
        wrong = (gold + rng.integers(1, k, n)) % k
        return chosen(gold, np.where(rng.random(n) < np.asarray(right)[gold], gold, wrong), k)

    return make


def chosen(gold: Ints, pred: Ints, k: int) -> Table:
    """Return documents of k labels with the chosen ones."""
    n = len(gold)
    return table({"acc": (gold == pred).astype(float), "f1_macro": np.zeros(n), "mcc": np.zeros(n)}, (gold, pred, k))


def truth_of_labels(gold_share: Sequence[float], right: Sequence[float], metrics: Mapping[str, Aggregate]) -> float:
    """Return the score of the confusion matrix that is expected: one document a cell, weighing the cell's probability."""
    k = len(gold_share)
    gold, pred = np.divmod(np.arange(k * k), k)
    known = np.asarray(right)[gold]
    weights = np.asarray(gold_share)[gold] * np.where(gold == pred, known, (1 - known) / (k - 1))
    cells = chosen(gold, pred, k)
    return float(np.mean([f(cells, name, weights[None])[0] for name, f in metrics.items()]))


def exam(variants_of: int = 26) -> Maker:
    """Return exam variants of 26 items, of unequal difficulty; n counts variants."""

    def make(rng: np.random.Generator, n: int) -> Table:
        hard = rng.normal(0.3, 0.08, n).clip(0.02, 0.98).repeat(variants_of)
        values = (rng.random(len(hard)) < hard) / variants_of
        return table({"x": values}, clusters=np.arange(n).repeat(variants_of))

    return make


def repeated(times: int, spread: float) -> Maker:
    """Return documents that a sampled model answers several times, and some of which it knows better; n counts documents."""

    def make(rng: np.random.Generator, n: int) -> Table:
        known = rng.beta(0.5 / spread, 0.5 / spread, n).repeat(times)
        return table({"x": (rng.random(n * times) < known).astype(float)}, clusters=np.arange(n).repeat(times))

    return make


def dialogues(rng: np.random.Generator, n: int) -> Table:
    """Return clusters of 2 to 12 turns, whose share of right answers is theirs; n counts clusters."""
    size = rng.integers(2, 13, n)
    known = rng.beta(4, 4, n).repeat(size)
    return table({"x": (rng.random(len(known)) < known).astype(float)}, clusters=np.arange(n).repeat(size))


KNOWN = np.random.default_rng(57).beta(6, 8, len(SUBJECTS))
"""Share of MMLU's questions that is known, by subject: 0.43 with a standard deviation of 0.13."""


def by_category(known: Floats) -> float:
    """Return the mean over categories of the mean over their subjects."""
    letters = np.array(list(CATEGORIES[: len(known)]))
    return float(np.mean([known[letters == letter].mean() for letter in np.unique(letters)]))


def subjects(rows: int | None, count: int = len(SUBJECTS)) -> Maker:
    """Return `rows` questions of each of the first `count` subjects; None for as many as there are."""
    sizes = np.array(SUBJECTS[:count]) if rows is None else np.full(count, rows)
    strata = np.arange(count).repeat(sizes)
    return lambda rng, n: table({"x": (rng.random(len(strata)) < KNOWN[strata]).astype(float)}, strata=strata)


def limited(rng: np.random.Generator, n: int) -> Table:
    """Return n questions of MMLU drawn without regard to the subject, as `--limit` does."""
    strata = np.sort(rng.choice(np.arange(len(SUBJECTS)).repeat(SUBJECTS), n, replace=False))
    return table({"x": (rng.random(n) < KNOWN[strata]).astype(float)}, strata=strata)


def bits(rng: np.random.Generator, n: int) -> Table:
    """Return texts of unequal length and difficulty: bits and bytes."""
    size = rng.lognormal(5, 0.7, n)
    return table({"x": np.zeros(n), "bits": size * rng.lognormal(-0.2, 0.35, n), "bytes": size})


def copies(rng: np.random.Generator, n: int) -> Floats:
    """Return copies, four of five of them exact."""
    return np.where(rng.random(n) < 0.8, 1.0, rng.random(n))


def overlaps(rng: np.random.Generator, n: int) -> Floats:
    """Return values as ROUGE has them."""
    return rng.beta(2, 8, n)


def answers(rng: np.random.Generator, n: int) -> Floats:
    """Return F1 of answers: many 0, some 1, some between."""
    kind = rng.random(n)
    return np.where(kind < 0.6, 0.0, np.where(kind < 0.76, 1.0, rng.random(n)))


def cases() -> Iterator[Case]:
    """Yield all kinds of scores."""
    x = {"x": mean}
    for p in (0.25, 0.5, 0.9, 0.97):
        yield Case(
            f"right or wrong, p = {p}",
            plain(lambda rng, n, p=p: (rng.random(n) < p).astype(float)),
            x,
            p,
            (*SIZES, 2787),
        )
    yield Case("ROUGE, beta(2, 8)", plain(overlaps), x, 0.2, (*SIZES, 500))
    yield Case("F1 and EM of answers", plain(answers), x, 0.16 + 0.24 / 2, (*SIZES, 1056))
    yield Case("copies, four of five exact", plain(copies), x, 0.9, (*SIZES, 4915))
    both = {"acc": mean, "mcc": matthews}
    for name, share, right in (
        ("0.9 of right, 0.6 of wrong sentences accepted", (0.25, 0.75), (0.4, 0.9)),
        ("accepts at random", (0.25, 0.75), (0.2, 0.8)),
        ("hardly an error", (0.3, 0.7), (0.9, 0.97)),
    ):
        make = labelled(share, right)
        alone = {"mcc": matthews}
        yield Case(f"Matthews, {name}", make, alone, truth_of_labels(share, right, alone), (*SIZES, 2787))
        yield Case(f"accuracy and Matthews, {name}", make, both, truth_of_labels(share, right, both), (*SIZES, 2787))
    for k, share, right, full in (
        (3, (0.45, 0.4, 0.15), (0.5,) * 3, 438), (4, (0.25,) * 4, (0.35,) * 4, 2338), (4, (0.25,) * 4, (0.9,) * 4, 115)
    ):  # fmt: skip
        make = labelled(share, right)
        for metrics in ({"f1_macro": f1_macro}, {"acc": mean, "f1_macro": f1_macro}):
            title = "macro-F1" if len(metrics) == 1 else "accuracy and macro-F1"
            truth = truth_of_labels(share, right, metrics)
            yield Case(f"{title}, {k} labels, p = {right[0]}", make, metrics, truth, (*SIZES, full))
    yield Case(
        "exam grade, 26 items a variant",
        exam(),
        {"x": cluster_sum},
        0.3,  # to which clipping adds 0.000005
        (3, 5, 10, 20, 30, 101),
        "variants",
    )
    yield Case("dialogues of 2 to 12 turns", dialogues, x, 0.5, (5, *SIZES), "clusters")
    make = repeated(4, 1.0)
    yield Case("four answers a document", make, x, 0.5, SIZES)
    for rows in (1, 2, 5, 30, None):
        title = f"MMLU, 57 subjects, {rows or 'all'} rows each"
        yield Case(
            title, subjects(rows), {"x": category_mean}, by_category(KNOWN), (57 * rows if rows else sum(SUBJECTS),)
        )
    yield Case("MMLU, 8 subjects of 5 rows", subjects(5, 8), {"x": category_mean}, by_category(KNOWN[:8]), (40,))
    yield Case(
        "MMLU with --limit",
        limited,
        {"x": category_mean},
        by_category(KNOWN),
        (20, 30, 60, 100, 400, 1404),
        fixed=False,
    )
    # A text's bits are its bytes times a factor that does not depend on them.
    yield Case("bits per byte", bits, {"x": bits_per_byte}, math.exp(-0.2 + 0.35**2 / 2), SIZES)


# -- the earlier method -------------------------------------------------------------------------------------------------


def resample_before(clusters: Ints, strata: Ints, resamples: int, seed: int) -> Floats:
    """Return the draws of the earlier method: n of a stratum's n clusters, unscaled."""
    rng = np.random.default_rng(seed)
    stratum = strata[np.unique(clusters, return_index=True)[1]]
    drawn = np.zeros((resamples, len(stratum)))
    for number in np.unique(stratum):
        member = np.flatnonzero(stratum == number)
        drawn[:, member] = rng.multinomial(len(member), np.full(len(member), 1 / len(member)), size=resamples)
    return drawn[:, clusters]


def per_stratum_mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over categories of the mean over their strata, as it was computed for the earlier draws."""
    member = np.eye(len(table.strata_names))[table.strata]
    means = (weights @ (member * table.columns[name][:, None])) / (weights @ member)
    letters = np.array([name[0] for name in table.strata_names])
    return np.asarray(np.mean([means[:, letters == letter].mean(axis=1) for letter in np.unique(letters)], axis=0))


def interval_before(value: float, draws: Floats, count: int) -> tuple[float, float]:
    """Return the percentile interval; Clopper and Pearson's bounds for a score in [0, 1] whose draws are all equal."""
    low, high = np.quantile(draws, [0.025, 0.975])
    if high - low < 1e-12 and 0 <= value <= 1:
        same = 0.025 ** (1 / count)
        low, high = value * same, 1 - (1 - value) * same
    return float(low), float(high)


def told_apart_before(scores: Floats, draws: Floats, count: int) -> bool:
    """Return whether ranks told models apart: the best against all others, corrected after Holm for these tests alone."""
    best = int(np.argmax(scores))
    others = [i for i in range(len(scores)) if i != best]
    p = [bootstrap_test(scores[best] - scores[i], draws[best] - draws[i], count) for i in others]
    return min(holm(p)) < 0.05


# -- scores -------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """How often intervals held the truth, and how wide they were."""

    hits: int = 0
    below: int = 0
    """Intervals that lay below the truth."""
    width: float = 0.0
    count: int = 0

    def add(self, bounds: tuple[float, float] | None, truth: float) -> None:
        """Count an interval, if there is one."""
        if bounds is not None:
            self.count += 1
            self.hits += bounds[0] <= truth <= bounds[1]
            self.below += bounds[1] < truth
            self.width += bounds[1] - bounds[0]

    def shown(self) -> dict[str, Any]:
        """Return the shares as percentages."""
        count = max(self.count, 1)
        return {
            "coverage": round(100 * self.hits / count, 1) if self.count else None,
            "below": round(100 * self.below / count, 1),
            "width": round(self.width / count, 4),
            "intervals": self.count,
        }


class Draws:
    """The weights of both methods for data sets of one structure, drawn once for all that share it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.kept: dict[bytes, tuple[Floats, Floats]] = {}
        self.last: tuple[bytes, tuple[Floats, Floats]] = (b"", (np.zeros(0), np.zeros(0)))

    def of(self, data: Table, keep: bool = True, name: str = "") -> tuple[Floats, Floats]:
        """Return weights (B, N) of the present and of the earlier method; other names, other draws."""
        key = name.encode() + data.clusters.tobytes() + data.strata.tobytes()
        if key == self.last[0]:  # the next task on the same documents
            return self.last[1]
        if key not in self.kept:
            seed = [self.seed, len(self.kept), *name.encode()]
            number = int(np.random.default_rng(seed).integers(2**31))
            now = np.concatenate(list(resample(data.clusters, data.strata, RESAMPLES, number)))
            both = now, resample_before(data.clusters, data.strata, RESAMPLES, number)
            if not keep:
                self.seed += 1
                self.last = key, both
                return both
            self.kept[key] = both
        return self.kept[key]


def values(data: Table, metrics: Mapping[str, Aggregate], weights: Floats) -> Floats:
    """Return the (B,) draws of the mean of metrics."""
    return mean_of(draw(data, metrics, [weights]), metrics)


def as_before(metrics: Mapping[str, Aggregate]) -> dict[str, Aggregate]:
    """Return the aggregates of the earlier draws."""
    return {name: per_stratum_mean if f is category_mean else f for name, f in metrics.items()}


def coverage(case: Case, n: int, simulations: int, seed: int) -> dict[str, Any]:
    """Return what the intervals of both methods cover."""
    rng, draws = np.random.default_rng([seed, n, *case.name.encode()]), Draws(seed)
    now, before = Tally(), Tally()
    found = Estimate(0.0)
    for number in range(simulations):
        data = case.make(rng, n)
        weights, earlier = draws.of(data, case.fixed)
        found = estimate(data, case.metrics, values(data, case.metrics, weights), number)
        now.add(found.bounds, case.truth)
        old = values(data, as_before(case.metrics), earlier)
        before.add(interval_before(found.value, old, units(data)), case.truth)
    return {
        "case": case.name, "n": n, "unit": case.unit, "truth": round(case.truth, 4), "simulations": simulations,
        "now": now.shown(), "before": before.shown(),
    }  # fmt: skip


# -- models on the same documents ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A task that several models answer: documents have a hardness that all feel, and models a skill."""

    name: str
    size: int
    """Documents, or clusters of `items` documents."""
    metrics: Mapping[str, Aggregate]
    skill: float
    """The quantile of hardness up to which documents are answered rightly, in standard deviations."""
    kind: str = "right"
    """`right`: right or wrong; `graded`: between; `labels2`, `labels3`, `labels4`: chosen labels; `mmlu`: strata."""
    items: int = 1
    dataset: str = ""
    """Tasks on one data set have the same documents and are drawn alike."""

    def answers(
        self, rng: np.random.Generator, limit: int | None, shifts: Sequence[float], docs: int = 0
    ) -> list[Table]:
        """Return the scores of models whose skill is shifted, on the same documents.

        Args:
            rng: the generator.
            limit: documents at most, drawn as whole clusters.
            shifts: of the models' skill.
            docs: the seed of which documents these are.
        """
        count = self.size if limit is None else min(self.size, -(-limit // self.items))
        n = count * self.items
        which = np.random.default_rng([docs, *(self.dataset or self.name).encode()])
        strata = which.choice(len(SUBJECTS), n, p=np.array(SUBJECTS) / sum(SUBJECTS)) if self.kind == "mmlu" else None
        hard = which.normal(size=n) * 0.7 + which.normal(size=count).repeat(self.items) * (
            0.3 if self.items > 1 else 0.0
        )
        if strata is not None:
            hard = np.sqrt(0.9) * hard + np.sqrt(0.1) * EASE[strata]
        clusters = np.arange(count).repeat(self.items)
        k = int(self.kind[-1]) if self.kind.startswith("labels") else 0
        gold = which.choice(k, n, p=GOLD[k]) if k else np.full(n, -1)
        tables = []
        for shift in shifts:
            ease = self.skill + shift - hard - rng.normal(size=n) * 0.7
            if k:
                right = ease > 0
                pred = np.where(right, gold, (gold + rng.integers(1, k, n)) % k)
                zeros = np.zeros(n)
                columns = {"acc": right.astype(float), "f1_macro": zeros, "mcc": zeros}
                tables.append(table(columns, (gold, pred, k), clusters, strata))
            else:
                x = 1 / (1 + np.exp(-1.5 * ease)) if self.kind == "graded" else (ease > 0).astype(float)
                tables.append(table({"x": x / self.items}, None, clusters, strata))
        return tables


EASE = np.random.default_rng(58).normal(size=len(SUBJECTS))
GOLD = {2: (0.25, 0.75), 3: (0.45, 0.4, 0.15), 4: (0.25,) * 4}
PLAIN, F1 = {"x": mean}, {"acc": mean, "f1_macro": f1_macro}
TASKS = (
    Task("rummlu", 10033, PLAIN, -0.1),
    Task("mmlu_ru", 14042, {"x": category_mean}, -0.1, "mmlu", dataset="mmlu"),
    Task("mmlu_en", 14042, {"x": category_mean}, 0.2, "mmlu", dataset="mmlu"),
    Task("multiq", 1056, PLAIN, -0.8, "graded"),
    Task("parus", 400, PLAIN, 0.6),
    Task("rcb", 438, F1, 0.0, "labels3"),
    Task("rwsd", 606, PLAIN, 0.1),
    Task("use", 101, {"x": cluster_sum}, -0.8, items=26),
    Task("ruopenbookqa", 2338, F1, 0.5, "labels4"),
    Task("ruworldtree", 115, F1, 0.7, "labels4"),
    Task("rucola", 2787, {"acc": mean, "mcc": matthews}, 0.6, "labels2"),
    Task("sum_abstractive", 500, PLAIN, -0.8, "graded", dataset="treeway"),
    Task("sum_extractive", 500, PLAIN, -0.9, "graded", dataset="treeway"),
    Task("cp_sent_en", 4915, PLAIN, 1.5),
    Task("cp_para_en", 4915, PLAIN, 2.0, "graded"),
    Task("cp_sent_ru", 4915, PLAIN, 1.2),
    Task("cp_para_ru", 4915, PLAIN, 1.5, "graded"),
)
"""The suite, of the sizes of its data sets on the hub."""
NAMED = {task.name: task for task in TASKS}
PAIRS = {
    "right or wrong": ("parus", (10, 20, 50, 100, 400)),
    "graded": ("multiq", (10, 20, 50, 100, 400)),
    "exam variants": ("use", (5 * 26, 10 * 26, 30 * 26)),
    "MMLU with --limit": ("mmlu_ru", (60, 100, 400)),
    "accuracy and macro-F1": ("ruopenbookqa", (20, 50, 100, 400)),
    "accuracy and Matthews": ("rucola", (20, 50, 100, 400)),
}


def suite_coverage(limit: int | None, simulations: int, seed: int) -> dict[str, Any]:
    """Return what the intervals of Micro-Avg cover, of documents drawn anew each time; the truth is the mean of all of them."""
    rng, draws = np.random.default_rng([seed, limit or 0]), Draws(seed)
    runs = []
    for number in range(simulations):
        parts, old = [], []
        for task in TASKS:
            data = task.answers(rng, limit, [0.0], docs=number + 1)[0]
            weights, earlier = draws.of(data, task.kind != "mmlu", task.dataset or task.name)
            alone = units(data) < 2
            parts.append(estimate(data, task.metrics, None if alone else values(data, task.metrics, weights), number))
            old.append(None if alone else values(data, as_before(task.metrics), earlier))
        found = estimate_mean(parts)
        known = [d for d in old if d is not None]
        runs.append((found, np.mean(known, axis=0) if len(known) == len(old) else None))
    truth = suite_truth(seed)
    now, before = Tally(), Tally()
    for found, drawn in runs:
        now.add(found.bounds, truth)
        before.add(None if drawn is None else interval_before(found.value, drawn, 1), truth)
    return {
        "case": "Micro-Avg", "n": limit or 0, "unit": "documents a task", "truth": round(truth, 4),
        "simulations": simulations, "now": now.shown(), "before": before.shown(),
    }  # fmt: skip


@cache
def suite_truth(seed: int, documents: int = 400_000) -> float:
    """Return Micro-Avg of very many documents."""
    scores = []
    for task in TASKS:
        big = Task(**{**task.__dict__, "size": documents // task.items})
        data = big.answers(np.random.default_rng(seed), None, [0.0], docs=10**9)[0]
        scores.append(np.mean([f(data, name, data.ones())[0] for name, f in task.metrics.items()]))
    return float(np.mean(scores))


def comparisons(name: str, task: Task, limit: int, simulations: int, seed: int, shift: float = 0.4) -> dict[str, Any]:
    """Return how often equal models are told apart, and unequal ones; and the same of five models' ranks."""
    rng, draws = np.random.default_rng([seed, limit, *name.encode()]), Draws(seed)
    count = dict.fromkeys(("false", "false_before", "found", "found_before", "ranks", "ranks_before", "ranks_found"), 0)
    covered = Tally()
    for number in range(simulations):
        tables = task.answers(rng, limit, [0.0] * 5 + [-shift], docs=number + 1)
        weights, earlier = draws.of(tables[0], task.kind != "mmlu")
        scores = np.array([np.mean([f(t, m, t.ones())[0] for m, f in task.metrics.items()]) for t in tables])
        now = np.stack([values(t, task.metrics, weights) for t in tables])
        old = np.stack([values(t, as_before(task.metrics), earlier) for t in tables])
        n, df = units(tables[0]), degrees_of_freedom(tables[0])
        binary = task.kind == "right" and task.items == 1
        for other, key in ((1, "false"), (5, "found")):
            gap = scores[other] - scores[0]
            seen = difference(scores[0], scores[other], now[0], now[other], n, df)
            p, p_before = seen.p or 0.0, bootstrap_test(gap, old[other] - old[0], n)
            bounds = (seen.low or 0.0, seen.high or 0.0)
            if binary:
                a, b = tables[0].columns["x"], tables[other].columns["x"]
                wins, losses = int((b > a).sum()), int((b < a).sum())
                p, p_before, bounds = mid_p_test(wins, losses), sign_test(wins, losses), paired_shares(wins, losses, n)
            if other == 1:
                covered.add(bounds, 0.0)
            count[key] += p < 0.05
            count[f"{key}_before"] += p_before < 0.05
        count["ranks"] += max(shared_ranks(scores[:5], now[:5], n, df=df)) > 1
        count["ranks_before"] += told_apart_before(scores[:5], old[:5], n)
        count["ranks_found"] += shared_ranks(scores, now, n, df=df)[5] > 1
    shares = {key: round(100 * hits / simulations, 1) for key, hits in count.items()}
    return {"case": name, "n": n, "simulations": simulations, "difference": covered.shown(), **shares}


def suite_comparisons(limit: int, simulations: int, seed: int, shift: float = 0.15) -> dict[str, Any]:
    """Return the same of Micro-Avg of two models."""
    rng, draws = np.random.default_rng([seed, limit, 17]), Draws(seed)
    count = dict.fromkeys(("false", "false_before", "found", "found_before"), 0)
    covered = Tally()
    for number in range(simulations):
        scores, now, old, dfs, all_units = [], [], [], [], 0
        for task in TASKS:
            tables = task.answers(rng, limit, [0.0, 0.0, -shift], docs=number + 1)
            weights, earlier = draws.of(tables[0], task.kind != "mmlu", task.dataset or task.name)
            scores.append([np.mean([f(t, m, t.ones())[0] for m, f in task.metrics.items()]) for t in tables])
            now.append([values(t, task.metrics, weights) for t in tables])
            old.append([values(t, as_before(task.metrics), earlier) for t in tables])
            dfs.append(degrees_of_freedom(tables[0]))
            all_units += units(tables[0])
        mean_scores, mean_now, mean_old = (np.mean(part, axis=0) for part in (scores, now, old))
        for other, key in ((1, "false"), (2, "found")):
            df = degrees_of_mean([d[other] - d[0] for d in now], dfs)
            seen = difference(mean_scores[0], mean_scores[other], mean_now[0], mean_now[other], all_units, df)
            count[key] += (seen.p or 0.0) < 0.05
            gap = mean_scores[other] - mean_scores[0]
            count[f"{key}_before"] += bootstrap_test(gap, mean_old[other] - mean_old[0], all_units) < 0.05
            if other == 1:
                covered.add((seen.low or 0.0, seen.high or 0.0), 0.0)
    shares = {key: round(100 * hits / simulations, 1) for key, hits in count.items()}
    return {"case": "Micro-Avg", "n": limit, "simulations": simulations, "difference": covered.shown(), **shares}


# -- tables -------------------------------------------------------------------------------------------------------------


def scores_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return coverage and width as a Markdown table."""
    lines = ["| score | n | data sets | coverage before | now | width before | now |", "|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        old, new = row["before"], row["now"]
        n = f"{row['n']:,}" if row["n"] else "all"
        was = ("none", "–") if old["coverage"] is None else (f"{old['coverage']:.1f}", f"{old['width']:.3f}")
        lines.append(
            f"| {row['case']}{'' if row['unit'] == 'documents' else ', ' + row['unit']} | {n} | {row['simulations']:,} "
            f"| {was[0]} | {new['coverage']:.1f} | {was[1]} | {new['width']:.3f} |"
        )
    return "\n".join(lines)


def pairs_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return error rates and power as a Markdown table."""
    lines = [
        "| compared | units | false before | now | found before | now | interval covers | ranks: false before | now | found |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        ranks = [f"{row[key]:.1f}" if key in row else "–" for key in ("ranks_before", "ranks", "ranks_found")]
        cells = [f"{row[key]:.1f}" for key in ("false_before", "false", "found_before", "found")]
        covers = f"{row['difference']['coverage']:.1f}"
        lines.append(f"| {row['case']} | {row['n']:,} | {' | '.join([*cells, covers, *ranks])} |")
    return "\n".join(lines)


def simulations_for(size: int, wanted: int) -> int:
    """Return how many data sets of so many documents are simulated: fewer large ones."""
    return min(wanted, max(100, 600_000 // size))


def simulate(wanted: int, seed: int, only: str, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of both tables as they are known."""
    for case in cases():
        sizes = [n for n in case.sizes if not quick or n <= 100]
        for n in sizes if only in case.name else ():
            size = len(case.make(np.random.default_rng(0), n))
            cost = size if case.fixed else 3 * size  # draws of their own
            yield "scores", coverage(case, n, simulations_for(cost, wanted), seed)
    for limit in (5, 10, 25, 100) if only in "Micro-Avg" else ():
        yield "scores", suite_coverage(limit, wanted, seed)
    for name, (task, limits) in PAIRS.items():
        for limit in limits if only in f"pairs: {name}" else ():
            yield "pairs", comparisons(name, NAMED[task], limit, wanted, seed)
    for limit in (50, 100) if only in "pairs: Micro-Avg" else ():
        yield "pairs", suite_comparisons(limit, 5 * wanted // 2, seed)


def main() -> None:
    """Simulate, print the tables, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500, help="data sets a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="200 data sets a line, none of more than 100 documents")
    parser.add_argument("--only", default="", help="lines whose name holds this word")
    parser.add_argument(
        "--write", action="store_true", help="write results/coverage.json.xz and the tables of the docs"
    )
    options = parser.parse_args()
    start = time.perf_counter()
    wanted = min(options.simulations, 200) if options.quick else options.simulations
    rows: dict[str, list[dict[str, Any]]] = {"scores": [], "pairs": []}
    for kind, row in simulate(wanted, options.seed, options.only, options.quick):
        rows[kind].append(row)
        print(json.dumps(row), flush=True)
    tables = {"scores": scores_table(rows["scores"]), "pairs": pairs_table(rows["pairs"])}
    print("\n\n".join(tables.values()), f"\n{time.perf_counter() - start:.0f} s")
    if options.write:
        figures = json.dumps({"simulations": wanted, "seed": options.seed, **rows}, indent=1) + "\n"
        RESULTS.write_bytes(lzma.compress(figures.encode()))
        text = DOCS.read_text(encoding="utf-8")
        for kind, content in tables.items():
            before, rest = text.split(f"<!-- {kind} -->\n")
            after = rest.split(f"<!-- end of {kind} -->")[1]
            text = f"{before}<!-- {kind} -->\n{content}\n<!-- end of {kind} -->{after}"
        DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
