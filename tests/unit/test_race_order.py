"""What a race asks, and in which order: units and weights of tasks, random orders, rounds, and when one looks."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from darumeru.errors import UserError
from darumeru.race.benchmark import RacedTask, blocks_of, raced_task, round_sizes, rounds_of, units_a_round
from darumeru.scoring.aggregate import Aggregate, Table, accuracy, cluster_sum, f1_macro, macro_mean, matthews


def task(
    size: int,
    metrics: Mapping[str, Aggregate],
    primary: tuple[str, ...],
    clusters: int = 0,
    strata: list[str] | None = None,
) -> RacedTask:
    nothing: list[str | None] = [None] * size
    groups = [str(i % clusters) for i in range(size)] if clusters else nothing
    table = Table.build({}, nothing, nothing, groups, [*strata] if strata else nothing)
    return raced_task(f"t{size}", [10 + i for i in range(size)], table, metrics, primary)


def test_a_task_counts_with_what_is_a_sum_over_documents() -> None:
    rcb = task(4, {"acc": accuracy, "f1_macro": f1_macro}, ("acc", "f1_macro"))
    assert (rcb.metrics, rcb.left_out) == (("acc",), ("f1_macro",))
    assert rcb.units == ((10,), (11,), (12,), (13,))
    # A task whose whole score is none counts with its accuracy.
    assert task(4, {"acc": accuracy, "mcc": matthews}, ("mcc",)).metrics == ("acc",)
    with pytest.raises(UserError, match="'t4' cannot be raced: its score"):
        task(4, {"mcc": matthews}, ("mcc",))


def test_exams_are_drawn_as_a_whole_and_questions_by_the_weight_of_their_subject() -> None:
    exams = task(6, {"grade": cluster_sum}, ("grade",), clusters=2)
    assert exams.units == ((10, 12, 14), (11, 13, 15))
    assert exams.weights == pytest.approx([0.5, 0.5])
    subjects = task(4, {"acc": macro_mean}, ("acc",), strata=["a", "b", "b", "b"])
    first = Counter(subjects.order(seed)[0] for seed in range(4000))
    assert first[0] / 4000 == pytest.approx(0.5, abs=0.03)
    assert first[1] / 4000 == pytest.approx(1 / 6, abs=0.03)
    assert subjects.order(7) == subjects.order(7)


def test_rounds_ask_every_unit_once_cheap_tasks_faster_and_cost_about_the_same() -> None:
    tasks = [task(300, {"acc": accuracy}, ("acc",)), task(40, {"acc": accuracy}, ("acc",))]
    cost = {"t300": 100.0, "t40": 900.0}
    assert units_a_round(tasks, cost) == {"t300": 3, "t40": 1}
    rounds = rounds_of(tasks, cost, seed=1)
    assert [{n: len(units) for n, units in r.items()} for r in rounds] == round_sizes(tasks, cost)
    for t in tasks:
        assert sorted(u for r in rounds for u in r[t.name]) == list(range(len(t.units)))
        # Until a task has none left, no round leaves it out.
        sizes = [len(r[t.name]) for r in rounds]
        assert sizes.index(0) == sum(s > 0 for s in sizes) if 0 in sizes else True
    spent = [sum(cost[n] * len(units) for n, units in r.items()) for r in rounds]
    assert max(spent[:-1]) <= 1.01 * spent[0]
    assert min(spent[:-1]) >= 0.7 * spent[0]
    other = rounds_of(tasks, cost, seed=2)
    assert other != rounds


def test_one_looks_when_enough_was_asked() -> None:
    blocks = blocks_of([5] * 1000)
    asked = np.cumsum([5 * (b.stop - b.start) for b in blocks])
    assert asked[0] >= 32
    assert asked[-1] == 5000
    assert [b.start for b in blocks[1:]] == [b.stop for b in blocks[:-1]]
    steps = np.diff(asked)[:-1]
    assert (steps <= np.maximum(36, 0.05 * asked[:-2] + 5)).all()
    assert len(blocks) < 130
    assert blocks_of([3]) == [slice(0, 1)]
