"""The statistics of a study, held against formulas written out and scipy: analysis of variance, order, halving, ranks."""

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from lep.study.analysis import rank_correlation, spread_of_seeds
from lep.study.anova import analyse, contrasts
from lep.study.design import affordable, better_half, informative_order


def grid_of(a: int, b: int, repeats: int) -> list[dict[str, str]]:
    return [{"a": f"a{i}", "b": f"b{j}"} for i, j, _ in product(range(a), range(b), range(repeats))]


# -- analysis of variance -----------------------------------------------------------------------------------------------


def test_a_whole_grid_has_the_sums_of_squares_of_the_textbook() -> None:
    levels = grid_of(3, 2, 4)
    y = np.random.default_rng(0).normal(size=(3, 2, 4)) + np.arange(3)[:, None, None]
    found = analyse(y.ravel(), levels)
    grand, a, b, cell = y.mean(), y.mean(axis=(1, 2)), y.mean(axis=(0, 2)), y.mean(axis=2)
    squares = {
        ("a",): 8 * ((a - grand) ** 2).sum(),
        ("b",): 12 * ((b - grand) ** 2).sum(),
        ("a", "b"): 4 * ((cell - a[:, None] - b[None, :] + grand) ** 2).sum(),
    }
    error = ((y - cell[:, :, None]) ** 2).sum()
    assert (found.df, found.testable) == (18, True)
    assert found.variance == pytest.approx(error / 18)
    for effect in found.effects:
        assert effect.squares == pytest.approx(squares[effect.factors])
        f = squares[effect.factors] / effect.df / (error / 18)
        assert effect.f == pytest.approx(f)
        assert effect.p == pytest.approx(stats.f.sf(f, effect.df, 18))
    assert {e.factors: e.df for e in found.effects} == {("a",): 2, ("b",): 1, ("a", "b"): 2}


def test_one_factor_is_scipys_one_way_analysis_also_with_unequal_groups() -> None:
    draw = np.random.default_rng(1)
    groups = [draw.normal(loc=loc, size=size) for loc, size in ((0.0, 3), (0.5, 5), (0.7, 4))]
    levels = [{"a": str(i)} for i, group in enumerate(groups) for _ in group]
    (effect,) = analyse(np.concatenate(groups), levels).effects
    expected = stats.f_oneway(*groups)
    assert (effect.f, effect.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


def test_in_a_grid_with_a_hole_an_effect_is_what_the_other_one_leaves() -> None:
    """Type II of a, by hand: the fall of the residuals when a joins b."""
    levels = [one for one in grid_of(2, 3, 2) if (one["a"], one["b"]) != ("a1", "b2")]
    y = np.random.default_rng(2).normal(size=len(levels))
    found = {e.factors: e for e in analyse(y, levels).effects}
    b = np.array([[float(one["b"] == f"b{j}") for j in range(3)] for one in levels])
    a = np.array([[float(one["a"] == "a1")] for one in levels])

    def rest(columns: np.ndarray) -> float:
        return float(((y - columns @ np.linalg.pinv(columns) @ y) ** 2).sum())

    assert found[("a",)].squares == pytest.approx(rest(b) - rest(np.hstack([b, a])))
    # One interaction is lost with the hole.
    assert found[("a", "b")].df == 1


def test_without_repetitions_nothing_is_tested_where_the_error_is_not_known() -> None:
    found = analyse(np.array([1.0, 2.0, 3.0, 5.0]), grid_of(2, 2, 1))
    assert found.df == 0
    assert not found.testable
    assert all(e.p is None and e.f is None for e in found.effects)


def test_tests_of_equal_levels_are_wrong_as_often_as_they_say() -> None:
    draw, levels = np.random.default_rng(3), grid_of(2, 3, 2)
    p = [{e.factors: e.p for e in analyse(draw.normal(size=12), levels).effects}[("a",)] for _ in range(400)]
    assert 0.02 < np.mean([value is not None and value < 0.05 for value in p]) < 0.09


def test_a_contrast_of_pairs_is_the_paired_difference() -> None:
    """With one value a combination, blocks are pairs: scipy's paired t interval."""
    draw = np.random.default_rng(4)
    one, other = draw.normal(size=6), draw.normal(size=6) + 1
    levels = [{"a": a, "b": str(j)} for a in ("x", "y") for j in range(6)]
    (found,) = contrasts(np.concatenate([one, other]), levels, "a")
    expected = stats.ttest_rel(other, one).confidence_interval()
    assert (found.first, found.level) == ("x", "y")
    assert found.value == pytest.approx((other - one).mean())
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_a_contrast_compares_only_what_both_levels_have() -> None:
    levels = [{"a": "x", "b": "0"}, {"a": "y", "b": "0"}, {"a": "y", "b": "1"}]
    (found,) = contrasts(np.array([1.0, 2.0, 100.0]), levels, "a")
    assert (found.value, found.low) == (pytest.approx(1.0), None)
    assert contrasts(np.array([1.0, 2.0]), [{"a": "x", "b": "0"}, {"a": "y", "b": "1"}], "a") == []


# -- ranks and seeds ----------------------------------------------------------------------------------------------------


def test_the_rank_correlation_is_scipys() -> None:
    draw = np.random.default_rng(5)
    start = draw.normal(size=12)
    end = start + draw.normal(size=12)
    found = rank_correlation(list(start), list(end))
    assert found.value == pytest.approx(stats.spearmanr(start, end).statistic)
    assert found.low is not None and found.high is not None and found.value is not None
    half = 1.959964 * math.sqrt((1 + found.value**2 / 2) / 9)
    assert math.atanh(found.high) - math.atanh(found.low) == pytest.approx(2 * half, rel=1e-5)


@pytest.mark.parametrize("pairs", [[(1.0, 2.0), (2.0, 3.0)], [(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]])
def test_few_or_equal_pairs_have_no_rank_correlation(pairs: list[tuple[float, float]]) -> None:
    assert rank_correlation([a for a, _ in pairs], [b for _, b in pairs]).value is None


def test_the_spread_of_seeds_is_pooled() -> None:
    found = spread_of_seeds([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0]])
    assert found == (pytest.approx(math.sqrt((2.0 + 6.0) / 3)), 3)
    assert spread_of_seeds([[1.0], [2.0]]) is None


# -- the order of cells -------------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_largest_determinant() -> None:
    """Greedy D-optimality with determinants computed from scratch."""
    points = [{"a": a, "b": b} for a, b in product((0, 1, 2), (0, 1))]
    columns = [[1.0] + [float(p["a"] == i) for i in range(3)] + [float(p["b"] == i) for i in range(2)]
               + [float(p == {"a": i, "b": j}) for i, j in product(range(3), range(2))] for p in points]  # fmt: skip
    rows, prior = np.array(columns), np.diag([1e-3] + [1e-2] * 5 + [1.0] * 6)
    order: list[int] = []
    for _ in points:

        def gain(i: int) -> float:
            chosen = rows[[*order, i]]
            return float(np.linalg.slogdet(prior + chosen.T @ chosen)[1])

        order.append(max((i for i in range(6) if i not in order), key=lambda i: (round(gain(i), 9), -i)))
    assert informative_order(points, [1.0] * 6) == order


def test_repetitions_come_last_and_cheap_cells_first() -> None:
    points = [{"a": 0, "b": 0}, {"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 1}]
    assert informative_order(points, [1.0] * 5)[-1] in (0, 1)
    assert informative_order(points, [9.0, 9.0, 1.0, 9.0, 9.0])[0] == 2


def test_a_budget_begins_what_would_end_in_time() -> None:
    assert affordable([0, 1, 2, 3], [2.0, 5.0, 1.0, 1.0], 4.0, 1) == ([0, 2, 3], [1])
    assert affordable([0, 1, 2, 3], [2.0, 5.0, 1.0, 1.0], 4.0, 2) == ([0, 2, 3], [1])
    assert affordable([0, 1], [2.0, 2.0], 2.0, 2) == ([0, 1], [])


@pytest.mark.parametrize(
    ("scores", "always", "kept"),
    [
        ({"a": 1.0, "b": 3.0, "c": 2.0}, (), ["a", "c"]),
        ({"a": 1.0, "b": 3.0}, (), ["a"]),
        ({"a": 1.0}, (), ["a"]),
        ({"a": 1.0, "b": 3.0, "c": 2.0, "d": 9.0}, ("d",), ["a", "c", "d"]),
        ({}, (), []),
    ],
)
def test_the_better_half_and_the_controls_go_further(
    scores: dict[str, float], always: tuple[str, ...], kept: list[str]
) -> None:
    assert better_half(scores, always) == kept
