"""Strengths from comparisons, and what a judge's agreement with itself is worth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from darumeru.scoring.aggregate import Floats
from darumeru.scoring.bradley_terry import ELO, PRIOR, expected, fit, strengths
from darumeru.scoring.judging import FIRST, SECOND, TIE, agree, judge_judge


def simulated(strength: Floats, prompts: int, seed: int, ties: float = 0.0) -> Floats:
    """Points of all pairs on so many prompts; a share of the verdicts becomes ties."""
    rng = np.random.default_rng(seed)
    m = len(strength)
    points = np.zeros((prompts, m, m))
    for i in range(m):
        for j in range(i + 1, m):
            won = (rng.random(prompts) < 1 / (1 + np.exp(strength[j] - strength[i]))).astype(float)
            won[rng.random(prompts) < ties] = 0.5
            points[:, i, j], points[:, j, i] = won, 1 - won
    return points


def test_planted_strengths_are_recovered() -> None:
    planted = np.array([0.9, 0.2, -0.3, -0.8])
    found = fit(simulated(planted, 20_000, 0), 0, resamples=50)
    assert_allclose(found.strength, planted, atol=0.03)
    assert found.elo(0)["value"] == pytest.approx(1000 + ELO * found.strength[0])
    # What the model expects is what happened: the score equations of the maximum.
    assert_allclose(expected(found.strength), [found.wins[i].sum() / 60_000 for i in range(4)], atol=1e-4)


def test_two_models_have_the_closed_form() -> None:
    found = fit(simulated(np.array([0.5, -0.5]), 40, 1), 0)
    won, lost = found.wins[0, 1] + PRIOR, found.wins[1, 0] + PRIOR
    assert found.strength[0] - found.strength[1] == pytest.approx(np.log(won / lost))


def test_the_order_of_the_models_does_not_matter() -> None:
    points = simulated(np.array([1.0, 0.0, -1.0]), 30, 2, ties=0.2)
    turn = [2, 0, 1]
    a, b = fit(points, 0), fit(points[:, turn][:, :, turn], 0)
    assert_allclose(a.strength[turn], b.strength, atol=1e-9)
    assert_allclose(a.strength.sum(), 0, atol=1e-12)
    swapped = fit(points.transpose(0, 2, 1), 0)
    assert_allclose(swapped.strength, -a.strength, atol=1e-9)


def test_ties_pull_together_and_only_ties_make_equals() -> None:
    clear, tied = (fit(simulated(np.array([1.0, -1.0]), 400, 3, ties), 0) for ties in (0.0, 0.6))
    assert 0 < tied.strength[0] < clear.strength[0]
    only = fit(simulated(np.array([1.0, -1.0]), 10, 3, ties=1.0), 0)
    assert_allclose(only.strength, 0, atol=1e-12)
    assert only.share(0)["value"] == 0.5
    assert only.groups == [[0, 1]]


@pytest.mark.parametrize("prompts", [1, 10, 10_000])
def test_a_model_that_wins_all_gets_finite_numbers_and_an_interval(prompts: int) -> None:
    found = fit(simulated(np.array([50.0, 0.0, -50.0]), prompts, 4), 0)
    assert np.isfinite(found.strength_draws).all()
    assert np.abs(found.strength_draws).max() < 30
    assert found.groups == [[0], [1], [2]]
    share = found.share(0)
    assert share["value"] == share["high"] == 1.0
    assert share["low"] is not None
    assert 0 < share["low"] < 1
    elo = found.elo(0)
    assert elo["low"] < elo["value"] < elo["high"]
    # Ten of ten are not 10,000 of 10,000.
    assert found.strength[0] > found.strength[1] > found.strength[2]


def test_ten_of_ten_have_the_interval_of_jeffreys() -> None:
    from scipy.stats import beta

    share = fit(simulated(np.array([50.0, -50.0]), 10, 4), 0, resamples=20_000).share(0)
    assert share["low"] == pytest.approx(beta(10.5, 0.5).ppf(0.025), abs=0.01)


def test_what_was_not_judged_counts_for_nobody() -> None:
    points = simulated(np.array([0.5, -0.5, 0.0]), 50, 5)
    holes = points.copy()
    holes[10:20, 0, 1] = holes[10:20, 1, 0] = 0
    found = fit(holes, 0)
    assert found.wins[0, 1] + found.wins[1, 0] == 40
    assert found.share(0, 1)["value"] == holes[:, 0, 1].sum() / 40
    apart = points.copy()
    apart[:, 2, :] = apart[:, :, 2] = 0
    lonely = fit(apart, 0)
    assert lonely.share(2)["value"] is None
    assert np.isfinite(lonely.strength).all()
    assert [2] in lonely.groups
    with pytest.raises(ValueError, match="no comparison"):
        fit(np.zeros((3, 2, 2)), 0)


def test_intervals_cover_about_as_often_as_they_say() -> None:
    planted = np.array([0.6, 0.0, -0.6])
    hits = total = 0
    for seed in range(150):
        found = fit(simulated(planted, 60, 100 + seed), seed, resamples=300)
        low, high = np.quantile(found.strength_draws, [0.025, 0.975], axis=0)
        hits += int(((low <= planted) & (planted <= high)).sum())
        total += 3
    assert 0.92 <= hits / total <= 0.98


def test_draws_repeat_and_newton_survives_extremes() -> None:
    points = simulated(np.array([1.0, -1.0]), 20, 6)
    assert_allclose(fit(points, 7).strength_draws, fit(points, 7).strength_draws)
    assert not np.allclose(fit(points, 7).strength_draws, fit(points, 8).strength_draws)
    wide = strengths(np.array([[0, 1e7], [1e-4, 0]]))
    assert wide[0] - wide[1] == pytest.approx(np.log(1e11))


# -- judges -----------------------------------------------------------------------------------------------------------


def judged(choices: list[tuple[int, int]], seed: int = 0):  # type: ignore[no-untyped-def]
    return judge_judge(np.array(choices), list(range(len(choices))), seed)


def test_agreement_is_about_answers_not_places() -> None:
    rows = np.array([(FIRST, SECOND), (SECOND, FIRST), (TIE, TIE), (FIRST, FIRST), (SECOND, SECOND), (FIRST, TIE)])
    assert agree(rows).tolist() == [True, True, True, False, False, False]


def test_a_judge_who_reads_is_believed_even_if_one_model_wins_all() -> None:
    found = judged([(FIRST, SECOND)] * 12)
    assert found.consistency["value"] == 1
    assert found.expected == 0.5
    assert found.kappa == 1
    assert not found.chance
    assert not found.biased
    # Two pairs are too few to know.
    assert judged([(FIRST, SECOND)] * 2).chance


def test_a_judge_who_only_sees_places_is_not() -> None:
    found = judged([(FIRST, FIRST)] * 30)
    assert (found.consistency["value"], found.kappa, found.first) == (0, 0, 1)
    assert found.chance
    assert found.biased
    assert judged([(TIE, TIE)] * 30).chance
    assert judged([(TIE, TIE)] * 30).kappa is None


def test_a_judge_who_throws_dice_is_mostly_called_so() -> None:
    rng = np.random.default_rng(0)
    flagged = sum(judged([tuple(c) for c in rng.integers(0, 3, (60, 2))], s).chance for s in range(60))
    assert flagged >= 54


def test_a_leaning_judge_is_biased_and_can_still_agree() -> None:
    found = judged([(FIRST, SECOND)] * 20 + [(SECOND, FIRST)] * 10 + [(FIRST, FIRST)] * 20)
    assert found.biased
    assert found.bias["value"] == pytest.approx(0.4)
    assert not found.chance
    assert found.to_json()["biased"] is True
