"""Confidence sequences: by hand, over all orders of a small benchmark, and on simulated ones; weights of linear scores."""

import itertools
import math

import numpy as np
import pytest

from darumeru.scoring.aggregate import Aggregate, Table, cluster_sum, f1_macro, macro_mean, matthews, mean
from darumeru.scoring.linear import document_weights
from darumeru.scoring.sequence import ConfidenceSequence


def followed(order: list[float], total: int, effect: float, alpha: float) -> list[tuple[float, float]]:
    """The bounds after each unit of one task of equal weights, one effect: the formulas of the module, one number at a time."""
    seen: list[float] = []
    up = down = stakes_up = stakes_down = 0.0
    bounds = []
    low, high = 0.0, 1.0
    for x in order:
        n = len(seen)
        guess = (sum(seen) + 4 * 0.5) / (n + 4)
        variance = (sum(v * v for v in seen) + 4 * (0.25 + 0.25)) / (n + 4) - guess**2
        share = (total - n) / total
        known = sum(seen) / total
        stake_up = min(effect / (share**2 * variance), 0.8 / (share * guess))
        stake_down = min(effect / (share**2 * variance), 0.8 / (share * (1 - guess)))
        up += math.log(1 + stake_up * share * (x - guess)) + stake_up * (known + share * guess)
        down += math.log(1 - stake_down * share * (x - guess)) - stake_down * (known + share * guess)
        stakes_up, stakes_down = stakes_up + stake_up, stakes_down + stake_down
        seen.append(x)
        known, rest = sum(seen) / total, 1 - len(seen) / total
        low = max(low, known, (up - math.log(2 / alpha)) / stakes_up)
        high = min(high, known + rest, -(down - math.log(2 / alpha)) / stakes_down)
        bounds.append((low, high))
    return bounds


def test_bounds_are_those_of_the_formula_step_by_step() -> None:
    order = [1.0, 1.0, 0.0, 1.0, 0.5, 1.0, 1.0, 0.0, 1.0, 1.0]
    sequence = ConfidenceSequence(1, alpha=0.4, effects=(0.3,))
    for x, (low, high) in zip(order, followed(order, 10, 0.3, 0.4), strict=True):
        sequence.add([np.array([x])], [np.array([0.1])])
        assert float(sequence.low) == pytest.approx(low, abs=1e-9)
        assert float(sequence.high) == pytest.approx(high, abs=1e-9)
    assert float(sequence.low) == float(sequence.high) == pytest.approx(0.75)


def test_over_all_orders_of_a_small_benchmark_it_misses_no_more_often_than_allowed() -> None:
    # Every order in which six documents can be drawn is as probable as any other: the rate of misses is exact.
    values = np.array([0.0, 0.0, 0.0, 1.0, 0.2, 1.0])
    orders = np.array(list(itertools.permutations(range(6))))
    alpha = 0.5
    sequence = ConfidenceSequence(1, alpha=alpha, effects=(0.2, 0.4), shape=(len(orders),))
    missed = np.zeros(len(orders), dtype=bool)
    for n in range(6):
        sequence.add([values[orders[:, n : n + 1]]], [np.full((len(orders), 1), 1 / 6)])
        missed |= (sequence.low > values.mean() + 1e-9) | (sequence.high < values.mean() - 1e-9)
    assert 0 < missed.mean() <= alpha


@pytest.mark.parametrize(("effect", "least"), [(0.03, 0.9), (0.3, 0.3)])
def test_capital_at_the_true_score_is_no_more_than_one_in_expectation(effect: float, least: float) -> None:
    # Unequal weights, drawn with a probability proportional to them, two tasks: the expectation over all draws, exactly.
    weights = [np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.75])]
    values = [np.array([1.0, 0.0, 0.4]), np.array([0.0, 1.0])]
    truth = float(np.mean([w @ v for w, v in zip(weights, values, strict=True)]))
    expected = np.zeros(2)
    for first in itertools.permutations(range(3)):
        for second in itertools.permutations(range(2)):
            chance = _chance(weights[0], first) * _chance(weights[1], second)
            sequence = ConfidenceSequence(2, effects=(effect,))
            rounds = [(first[:1], second[:1]), (first[1:], second[1:])]
            for chosen in rounds:
                sequence.add(
                    [v[list(i)] for v, i in zip(values, chosen, strict=True)],
                    [w[list(i)] for w, i in zip(weights, chosen, strict=True)],
                )
            gain, stake = sequence._gain[:, 0], sequence._stake[:, 0]
            expected += chance * np.exp(gain - np.array([1, -1]) * stake * truth)
    assert np.all(expected <= 1 + 1e-12)
    assert np.all(expected > least)  # and little is given away


def _chance(weights: np.ndarray, order: tuple[int, ...]) -> float:
    """Probability of an order in which the next unit is drawn in proportion to the weights that are left."""
    left, chance = 1.0, 1.0
    for i in order:
        chance *= weights[i] / left
        left -= weights[i]
    return chance


def test_looking_after_every_round_misses_at_most_one_in_twenty_and_decides_early() -> None:
    rng = np.random.default_rng(5)
    sizes, runs = (40, 300, 1500), 400
    for shift, decided in ((0.0, 0.05), (0.15, 0.99)):
        worth = [rng.choice([-1.0, 0.0, 1.0], p=[0.2 - shift / 2, 0.6, 0.2 + shift / 2], size=n) for n in sizes]
        worth = [v - (v.mean() - shift) * (np.abs(v) < 2) for v in worth]
        worth = [v.clip(-1, 1) for v in worth]
        truth = float(np.mean([v.mean() for v in worth]))
        order = [np.argsort(rng.random((runs, n)), axis=1) for n in sizes]
        sequence = ConfidenceSequence(3, low=-1, shape=(runs,))
        missed, sure = np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
        for start in range(0, 400, 4):
            chosen = [o[:, start : start + 4] for o in order]
            sequence.add(
                [v[i] for v, i in zip(worth, chosen, strict=True)],
                [np.full(i.shape, 1 / n) for i, n in zip(chosen, sizes, strict=True)],
            )
            missed |= (sequence.low > truth) | (sequence.high < truth)
            sure |= (sequence.low > 0) | (sequence.high < 0)
        assert missed.mean() <= 0.05
        assert sure.mean() <= decided if shift == 0 else sure.mean() >= decided


def test_a_round_that_leaves_a_task_out_is_refused() -> None:
    sequence = ConfidenceSequence(2)
    with pytest.raises(ValueError, match="task 1 has units left"):
        sequence.add([np.array([1.0]), np.array([])], [np.array([0.5]), np.array([])])
    with pytest.raises(ValueError, match=r"outside \[0.0, 1.0\]"):
        ConfidenceSequence(1).add([np.array([1.5])], [np.array([1.0])])


def table(clusters: list[str | None], strata: list[str | None]) -> Table:
    nothing: list[str | None] = [None] * len(clusters)
    return Table.build({"v": [0.0] * len(clusters)}, nothing, nothing, clusters, strata)


def test_weights_of_scores_that_are_sums() -> None:
    flat = table([None] * 4, [None] * 4)
    assert document_weights(mean, flat) == pytest.approx([0.25] * 4)
    # Two subjects of one and three questions: a subject counts a half.
    assert document_weights(macro_mean, table([None] * 4, ["a", "b", "b", "b"])) == pytest.approx([0.5, *[1 / 6] * 3])
    # Two exams of three and one items: an exam's grade is the sum of its items' points.
    assert document_weights(cluster_sum, table(["x", "x", "y", "x"], [None] * 4)) == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("aggregate", [f1_macro, matthews])
def test_scores_that_are_no_sums_have_no_weights(aggregate: Aggregate) -> None:
    assert document_weights(aggregate, table([None] * 6, [None] * 6)) is None
