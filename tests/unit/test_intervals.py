"""Intervals against published numbers and formulas, and what they cover where documents are few."""

import importlib.util
import json
import lzma
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from darumeru.scoring.aggregate import Floats, Table, bits_per_byte, cluster_sum, macro_mean, matthews, mean
from darumeru.scoring.bootstrap import degrees_of_freedom, resample
from darumeru.scoring.compare import difference, mid_p_test, paired_shares, sign_test
from darumeru.scoring.estimate import NO_SPREAD, ONE_UNIT, Estimate, estimate, estimate_mean, with_bounds
from darumeru.scoring.interval import degrees_of_sum, log_odds, percentiles, quantile, square_and_add, student, wilson
from darumeru.scoring.summary import score_task, with_interval


def table(
    values: list[float],
    clusters: list[str] | None = None,
    strata: list[str] | None = None,
    labels: tuple[str, str] | None = None,
) -> Table:
    n = len(values)
    gold, pred = labels or ([None] * n, [None] * n)
    return Table.build({"x": values}, gold, pred, clusters or [None] * n, strata or [None] * n)


def draws(t: Table, resamples: int = 4000, seed: int = 1) -> Floats:
    return np.concatenate(list(resample(t.clusters, t.strata, resamples, seed)))


# -- formulas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_table(right: int, count: int, low: float, high: float) -> None:
    # Newcombe (1998), Two-sided confidence intervals for the single proportion, table I, method 3.
    assert wilson(right / count, count) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(1 - right / count, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((0, 10), (0, 20), -0.1611, 0.2775),
    ],
)
def test_square_and_add_gives_newcombes_table(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    # Newcombe (1998), Interval estimation for the difference between independent proportions, table II, method 10.
    (a, n), (b, m) = first, second
    one, other = wilson(a / n, n), wilson(b / m, m)
    down, up = np.array([a / n - one[0], other[1] - b / m]), np.array([one[1] - a / n, b / m - other[0]])
    assert square_and_add(a / n - b / m, down, up, np.eye(2)) == pytest.approx((low, high), abs=6e-5)


def test_quantiles_are_those_of_the_tables() -> None:
    assert [quantile(df=df) for df in (1, 4, 9, 29)] == pytest.approx([12.706, 2.776, 2.262, 2.045], abs=5e-4)
    assert quantile() == pytest.approx(1.95996, abs=1e-5)
    assert student(10.0, 2.0, 4) == pytest.approx((10 - 5.553, 10 + 5.553), abs=1e-3)


def test_log_odds_between_minus_one_and_one_are_fishers_z() -> None:
    # A correlation of 0.5 in 28 pairs: tanh(0.5493 ± 1.96 / 5), the textbook's interval.
    assert log_odds(0.5, 0.75 / 5, math.inf, (-1.0, 1.0)) == pytest.approx((0.1557, 0.7351), abs=1e-3)
    # A share of 0.8 of 100: the odds of 4 times or over exp(1.96 · 0.25).
    assert log_odds(0.8, 0.04, math.inf) == pytest.approx((0.7102, 0.8672), abs=1e-4)
    low, high = log_odds(0.999, 0.5, 1)
    assert 0 <= low < high <= 1


def test_welchs_degrees_of_freedom() -> None:
    # Two samples of 15 with variances 7.9 and 3.8: 24.9.
    assert degrees_of_sum([7.9 / 15, 3.8 / 15], [14, 14]) == pytest.approx(24.93, abs=0.01)
    assert degrees_of_sum([1.0, 0.0], [4, 9]) == pytest.approx(4)
    assert degrees_of_sum([0.0, 0.0], [4, 9]) == 4


def test_percentiles_are_widened_for_few_units() -> None:
    values = np.linspace(0, 1, 100_001)
    assert percentiles(values) == pytest.approx((0.025, 0.975), abs=1e-4)
    # Φ(-2.776): five units.
    assert percentiles(values, df=4) == pytest.approx((0.00275, 0.99725), abs=1e-4)


def test_mcnemars_tests_give_the_published_example() -> None:
    # Fagerland, Lydersen and Laake (2013): 21 children, 1 and 7 discordant: exact 0.070, mid-p 0.039.
    assert sign_test(1, 7) == pytest.approx(0.0703, abs=1e-4)
    assert mid_p_test(1, 7) == pytest.approx(0.0391, abs=1e-4)
    assert mid_p_test(7, 1) == mid_p_test(1, 7)
    assert mid_p_test(0, 0) == mid_p_test(3, 3) == 1.0
    # The same children: Bonett and Price's interval of -6 / 21.
    assert paired_shares(1, 7, 21) == pytest.approx((-0.508, -0.013), abs=1e-3)
    low, high = paired_shares(0, 0, 100)
    assert low == -high < 0


# -- draws --------------------------------------------------------------------------------------------------------------


def test_draws_have_the_unbiased_variance_of_strata() -> None:
    # Σ (1/3)² s²/2 with s² = ½, 0, ½; drawing two of two would give half of it.
    t = table([0, 1, 1, 1, 0, 1], strata=["a", "a", "b", "b", "c", "c"])
    assert np.var(macro_mean(t, "x", draws(t))) == pytest.approx(0.5 / 2 * 2 / 9, rel=0.05)
    assert degrees_of_freedom(t) == 3


def test_degrees_of_freedom_of_strata_are_those_of_welch() -> None:
    # Two strata whose samples vary alike: the t test of unequal variances, as SciPy has it.
    few, many = np.arange(5) / np.std(np.arange(5), ddof=1), np.arange(15) / np.std(np.arange(15), ddof=1)
    welch = stats.ttest_ind(few, many, equal_var=False).df
    assert degrees_of_freedom(table([0.0] * 20, strata=["a"] * 5 + ["b"] * 15)) == pytest.approx(welch)
    # A stratum that is half of its category counts half as much; strata of equal size and share have n less strata.
    nested = table([0.0] * 30, strata=["a/x"] * 10 + ["a/y"] * 10 + ["b/z"] * 10)
    assert degrees_of_freedom(nested) == pytest.approx((1 + 1 / 4 + 1 / 4) ** 2 / ((1 + 1 / 16 + 1 / 16) / 9))
    assert degrees_of_freedom(table([0.0] * 40, strata=[str(i % 8) for i in range(40)])) == pytest.approx(32)


def test_draws_have_the_clustered_error() -> None:
    # Miller (arXiv 2411.00640), equation 4: √(Σ_c (Σ_i (s_i - s̄))²) / n = √4 / 10, and 5 / 4 for five clusters.
    values = [1, 1, 1, 0, 0, 0, 1, 1, 0, 0]
    t = table([float(v) for v in values], clusters=[str(i // 2) for i in range(10)])
    assert np.var(mean(t, "x", draws(t))) == pytest.approx(0.04 * 5 / 4, rel=0.05)
    alone = table([float(v) for v in values])
    assert np.var(mean(alone, "x", draws(alone))) == pytest.approx(0.25 / 9, rel=0.05)


def test_strata_of_one_document_are_drawn_together() -> None:
    values = [float(i % 3 == 0) for i in range(57)]
    t = table(values, strata=[str(i) for i in range(57)])
    assert np.var(macro_mean(t, "x", draws(t))) == pytest.approx(np.var(values, ddof=1) / 57, rel=0.05)
    # One alone joins the smallest other stratum; the score itself does not change.
    t = table([1, 0, 1, 1, 0, 1], strata=["a", "b", "b", "c", "c", "c"])
    assert t.groups.tolist() == [0, 0, 1]
    assert macro_mean(t, "x", t.ones()) == pytest.approx([(1 + 1 / 2 + 2 / 3) / 3])
    # Squared weights 1 + 2/4 of three units, and 3/9 of three.
    assert degrees_of_freedom(t) == pytest.approx((3 / 2 + 1 / 3) ** 2 / ((3 / 2) ** 2 / 2 + (1 / 3) ** 2 / 2))
    lone = table([1.0, 0.0], clusters=["v", "v"])
    assert draws(lone, 10).tolist() == [[1.0, 1.0]] * 10


# -- which interval -----------------------------------------------------------------------------------------------------


def test_documents_that_are_right_or_wrong_get_wilsons_interval() -> None:
    t = table([1.0] * 7 + [0.0] * 13)
    score, found = score_task(t, {"x": mean}, ("x",), seed=1)
    assert (score["score"]["low"], score["score"]["high"]) == pytest.approx(wilson(7 / 20, 20))
    assert score["score"]["method"] == found.method == "wilson"
    clustered, _ = score_task(table([1.0] * 7 + [0.0] * 13, [str(i // 2) for i in range(20)]), {"x": mean}, ("x",), 1)
    assert clustered["score"]["method"] == "log-odds t"
    assert clustered["score"]["high"] - clustered["score"]["low"] > found.bounds[1] - found.bounds[0]  # type: ignore[index]


def test_equal_values_are_not_certain() -> None:
    score, _ = score_task(table([1.0] * 28), {"x": mean}, ("x",), seed=0)
    assert (score["score"]["low"], score["score"]["high"]) == pytest.approx((28 / (28 + 1.96**2), 1.0), abs=1e-4)
    # Each stratum is certain, and yet eight documents are not.
    t = table([1.0] * 4 + [0.0] * 4, strata=["a"] * 4 + ["b"] * 4)
    found = estimate(t, {"x": macro_mean}, macro_mean(t, "x", draws(t, 200)), 0)
    assert found.bounds == pytest.approx(wilson(0.5, 8))
    same = difference(0.5, 0.5, np.full(9, 0.5), np.full(9, 0.5), 40)
    assert same.low is not None
    assert same.low == -same.high < -0.02  # type: ignore[operator]


def test_one_unit_has_no_interval_and_says_so() -> None:
    score, found = score_task(table([0.2, 0.4], clusters=["v", "v"]), {"x": cluster_sum}, ("x",), seed=0, resamples=10)
    assert found.draws is None
    assert score["score"] == {"value": pytest.approx(0.6), "low": None, "high": None, "reason": ONE_UNIT}


def test_bits_per_byte_get_students_interval_of_the_logarithm() -> None:
    t = Table.build({"x": [0.0] * 3, "bits": [8.0, 9.0, 13.0], "bytes": [10.0] * 3}, *([[None] * 3] * 4))
    score, _ = score_task(t, {"x": bits_per_byte}, ("x",), seed=0, resamples=20_000)
    # Mean 1, s = √0.07, t with 2 degrees of freedom 4.303.
    half = math.exp(4.303 * math.sqrt(0.07 / 3))
    assert (score["score"]["low"], score["score"]["high"]) == pytest.approx((1 / half, half), abs=0.02)
    below, _ = score_task(table([-0.8, -0.9, -1.3]), {"x": mean}, ("x",), seed=0, resamples=20_000)
    assert (below["score"]["low"], below["score"]["high"]) == pytest.approx((-half, -1 / half), abs=0.02)
    mixed, _ = score_task(table([-1.0, 1.0, 2.0, 0.0]), {"x": mean}, ("x",), seed=0, resamples=20_000)
    # Mean ½, s² = 5/3, t with 3 degrees of freedom 3.182.
    assert mixed["score"]["high"] == pytest.approx(0.5 + 3.182 * math.sqrt(5 / 12), abs=0.03)
    flat, _ = score_task(table([2.5] * 5), {"x": mean}, ("x",), seed=0)
    assert flat["score"] == {"value": 2.5, "low": None, "high": None, "reason": NO_SPREAD}


def test_matthews_of_a_model_that_hardly_chooses_a_label_is_not_certain() -> None:
    gold, pred = "1" * 24 + "0" * 8, "1" * 32
    found = estimate(*_labelled(gold, pred))
    assert found.value == 0.0
    assert found.method == "jeffreys"
    assert found.bounds is not None
    assert found.bounds[0] < -0.1
    assert found.bounds[1] > 0.2
    # With many documents it is the interval of the draws.
    rng = np.random.default_rng(0)
    many = rng.integers(0, 2, 2000)
    chosen = np.where(rng.random(2000) < 0.8, many, 1 - many)
    t, metrics, drawn, seed = _labelled("".join(map(str, many)), "".join(map(str, chosen)))
    assert estimate(t, metrics, drawn, seed).bounds == pytest.approx(percentiles(drawn), abs=0.01)


def _labelled(gold: str, pred: str) -> tuple[Table, dict, Floats, int]:  # type: ignore[type-arg]
    t = table([0.0] * len(gold), labels=(gold, pred))
    return t, {"x": matthews}, matthews(t, "x", draws(t, 1000)), 0


def test_a_mean_of_tasks_knows_that_no_task_is_certain() -> None:
    sure, other = (
        estimate(t, {"x": mean}, mean(t, "x", draws(t, 500)), 0)
        for t in (table([1.0] * 6), table([1.0, 0, 0, 1, 0, 0]))
    )
    both = estimate_mean([sure, other])
    low, high = wilson(1.0, 6)[0], wilson(1 / 3, 6)
    # Newcombe: each task's own distance to its bound, squared and added.
    down = math.hypot(1 - low, 1 / 3 - high[0]) / 2
    assert both.bounds == pytest.approx((2 / 3 - down, 2 / 3 + (high[1] - 1 / 3) / 2))
    assert estimate_mean([sure]) is sure


def test_a_mean_with_a_task_of_one_unit_is_bounded_by_what_that_task_could_be() -> None:
    one = score_task(table([0.3, 0.3], clusters=["v", "v"]), {"x": cluster_sum}, ("x",), 0)[1]
    many = [score_task(table([float(i % 2) for i in range(40)]), {"x": mean}, ("x",), seed)[1] for seed in range(4)]
    without, found = estimate_mean(many), estimate_mean([*many, one])
    assert found.bounds is not None
    assert without.bounds is not None
    assert found.bounds[1] - found.bounds[0] > without.bounds[1] - without.bounds[0]
    assert 0 < found.bounds[0] < found.value < found.bounds[1] < 1
    unlimited = score_task(table([-2.0, -3.0], clusters=["v", "v"]), {"x": mean}, ("x",), 0)[1]
    assert estimate_mean([*many, unlimited]).bounds is None
    assert estimate_mean([*many, unlimited]).reason == ONE_UNIT


def test_tasks_on_shared_documents_are_not_independent() -> None:
    twin = table([1.0, 0, 0, 1, 0, 0, 1, 0] * 5)
    one = estimate(twin, {"x": mean}, mean(twin, "x", draws(twin, 2000, seed=4)), 0)
    apart = estimate(twin, {"x": mean}, mean(twin, "x", draws(twin, 2000, seed=5)), 0)
    together, independent = estimate_mean([one, one]), estimate_mean([one, apart])
    assert together.bounds == pytest.approx(one.bounds)
    assert independent.bounds is not None
    assert independent.bounds[1] - independent.bounds[0] == pytest.approx(
        (one.bounds[1] - one.bounds[0]) / math.sqrt(2), rel=0.05  # type: ignore[index]
    )  # fmt: skip


def test_a_score_with_draws_and_no_table() -> None:
    assert with_interval(None, None) == {"value": None, "low": None, "high": None}
    assert with_interval(0.5, None) == {"value": 0.5, "low": None, "high": None}
    flat = with_interval(0.0, np.zeros(10), 6)
    assert flat["high"] == pytest.approx(wilson(0.0, 6)[1])
    assert with_interval(0.0, np.zeros(10), 6, limits=(-1.0, 1.0))["low"] == pytest.approx(2 * wilson(0.5, 6)[0] - 1)
    values = np.linspace(0.4, 0.6, 1001)
    assert with_interval(0.5, values)["low"] == pytest.approx(0.405)
    assert with_bounds(Estimate(0.5, None)).bounds is None


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_the_mean_over_57_subjects_is_covered(rows: int) -> None:
    rng = np.random.default_rng(rows)
    known = rng.beta(6, 8, 57)
    strata = np.arange(57).repeat(rows)
    weights = np.concatenate(list(resample(np.arange(len(strata)), strata, 1000, 3)))
    hits, rounds = 0, 400
    for _ in range(rounds):
        t = table((rng.random(len(strata)) < known[strata]).astype(float).tolist(), strata=[str(s) for s in strata])
        low, high = estimate(t, {"x": macro_mean}, macro_mean(t, "x", weights), 0).bounds  # type: ignore[misc]
        hits += low <= known.mean() <= high
    assert 0.92 <= hits / rounds <= 0.99  # 400 data sets: 95 % ± 3.3


@pytest.mark.parametrize(("count", "least"), [(10, 0.91), (20, 0.92), (50, 0.93), (400, 0.94)])
def test_wilson_covers_95_percent_on_average_over_shares(count: int, least: float) -> None:
    # Brown, Cai and DasGupta (2001): coverage jumps with the share, as only n + 1 scores are possible; its mean is 95 %.
    intervals = [wilson(right / count, count) for right in range(count + 1)]
    covered = []
    for share in np.linspace(0.1, 0.9, 81):
        odds = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
        covered.append(sum(o for o, (low, high) in zip(odds, intervals, strict=True) if low <= share <= high))
    assert np.mean(covered) == pytest.approx(0.953, abs=0.005)
    assert min(covered) > least


def test_the_docs_show_the_results_of_the_simulation() -> None:
    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("coverage_benchmark", root / "benchmarks" / "interval_coverage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    results = json.loads(lzma.decompress((root / "benchmarks" / "results" / "coverage.json.xz").read_bytes()))
    page = (root / "docs" / "statistics.md").read_text("utf-8")
    assert module.scores_table(results["scores"]) in page
    assert module.pairs_table(results["pairs"]) in page
