"""Statistics of comparisons: known p-values, coverage on simulated data, shared ranks."""

import numpy as np
import pytest

from darumeru.scoring.aggregate import Table, mean
from darumeru.scoring.bootstrap import resample
from darumeru.scoring.compare import bootstrap_test, difference, holm, shared_ranks, sign_test, unpaired_interval
from darumeru.scoring.interval import percentiles


def test_sign_test_gives_the_tabulated_values() -> None:
    # Two-sided exact binomial: scipy.stats.binomtest, and Siegel's tables.
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 5) == 1.0
    assert sign_test(9, 1) == pytest.approx(22 / 1024)
    assert sign_test(0, 6) == pytest.approx(2 / 64)
    assert sign_test(10, 20) == pytest.approx(0.0987371, abs=1e-6)


def test_holm_gives_the_worked_example() -> None:
    # R: p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm")
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, 0.0005, 0.9]) == pytest.approx([0.08, 0.0015, 0.9])
    assert holm([]) == []


def _draws(values: np.ndarray, seed: int = 1, resamples: int = 1000) -> np.ndarray:
    table = Table.build({"x": list(values)}, *([None] * len(values) for _ in range(4)))
    blocks = resample(table.clusters, table.strata, resamples, seed)
    return np.concatenate([mean(table, "x", w) for w in blocks])


def test_intervals_cover_the_truth_and_pairing_narrows_them() -> None:
    rng = np.random.default_rng(7)
    hits, narrower, rejected, rounds = 0, 0, 0, 2000
    weights = next(resample(np.arange(200), np.zeros(200, dtype=np.int64), 400, 3, chunk=400)) / 200
    for _ in range(rounds):
        easy = rng.normal(0, 0.25, 200)
        a = (easy + rng.normal(0, 0.15, 200) > 0).astype(float)
        b = (easy + rng.normal(0.03, 0.15, 200) > 0).astype(float)
        a_draws, b_draws = weights @ a, weights @ b
        found = difference(a.mean(), b.mean(), a_draws, b_draws, 200)
        truth = _norm_cdf(0.03 / np.hypot(0.25, 0.15)) - 0.5
        hits += found.low <= truth <= found.high
        low, high = unpaired_interval(b.mean() - a.mean(), a_draws, b_draws)
        narrower += (found.high - found.low) < (high - low)
        c = (easy + rng.normal(0, 0.15, 200) > 0).astype(float)
        rejected += bootstrap_test(c.mean() - a.mean(), weights @ (c - a), 200) < 0.05
    assert 0.935 <= hits / rounds <= 0.965
    assert narrower / rounds > 0.999
    assert rejected / rounds <= 0.065


def _norm_cdf(x: float) -> float:
    from scipy.stats import norm

    return float(norm.cdf(x))


def test_score_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(3)
    hits, rounds = 0, 2000
    weights = next(resample(np.arange(300), np.zeros(300, dtype=np.int64), 400, 5, chunk=400)) / 300
    for _ in range(rounds):
        low, high = percentiles(weights @ (rng.random(300) < 0.6).astype(float))
        hits += low <= 0.6 <= high
    assert 0.935 <= hits / rounds <= 0.965


def test_no_difference_is_no_difference() -> None:
    draws = _draws(np.array([0.0, 1.0] * 20))
    assert bootstrap_test(0.0, draws - draws, 40) == 1.0
    same = difference(0.5, 0.5, draws, draws, 40)
    assert (same.value, same.p, same.smallest) == (0.0, 1.0, None)
    # 40 of 40 documents the other way: no spread, but as sure as 40 heads in a row.
    assert bootstrap_test(1.0, np.ones(100), 40) == pytest.approx(2 * 0.5**40)


def test_models_that_cannot_be_told_apart_share_a_rank() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(-0.5, 0.5, 400)

    def model(skill: float) -> np.ndarray:
        return (skill + rng.normal(0, 0.1, 400) > hard).astype(float)

    # Twins, a model far below, its twin, and one at the bottom; given in another order.
    answers = [model(-0.1), model(0.3), model(-0.45), model(0.3), model(-0.1)]
    values = np.array([a.mean() for a in answers])
    draws = np.stack([_draws(a) for a in answers])
    assert shared_ranks(values, draws, 400) == [3, 1, 5, 1, 3]
    assert shared_ranks(values[:1], draws[:1], 400) == [1]


def test_thousand_equal_models_share_one_rank() -> None:
    rng = np.random.default_rng(1)
    weights = next(resample(np.arange(100), np.zeros(100, dtype=np.int64), 500, 2, chunk=500)) / 100
    answers = (rng.random((300, 100)) < 0.5).astype(float)
    ranks = shared_ranks(answers.mean(axis=1), answers @ weights.T, 100)
    # Holm holds the family: the best of 300 equal models is not declared better than the median one.
    assert sum(rank == 1 for rank in ranks) > 150


def test_five_equal_models_share_a_rank_in_nineteen_of_twenty_boards() -> None:
    # Which of them is the best is seen in the same scores: Holm over four tests would let 7 to 14 % of boards tell them apart.
    rng = np.random.default_rng(11)
    weights = next(resample(np.arange(100), np.zeros(100, dtype=np.int64), 400, 4, chunk=400)) / 100
    apart, rounds = 0, 300
    for _ in range(rounds):
        hard = rng.normal(0, 1, 100)
        answers = (hard + rng.normal(0, 1, (5, 100)) < 0).astype(float)
        apart += max(shared_ranks(answers.mean(axis=1), answers @ weights.T, 100)) > 1
    assert apart / rounds <= 0.08
