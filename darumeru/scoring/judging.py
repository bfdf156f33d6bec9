"""Can a judge be believed? What its choices say when every pair was shown in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from darumeru.scoring.aggregate import Floats, Ints
from darumeru.scoring.bootstrap import RESAMPLES, resample
from darumeru.scoring.summary import with_interval

FIRST, SECOND, TIE = 0, 1, 2
"""Labels that a judge chooses among: a place, or that there is no difference."""

BIASED = 0.2
"""So far the shares of first and second place may lie apart; a larger difference that is no chance is called a bias."""

LEVEL_OF_CHANCE = 0.05


@dataclass(frozen=True)
class Judging:
    """Agreement of a judge with itself on N pairs in two orders."""

    pairs: int
    consistency: dict[str, float | None]
    """Share of pairs with the same verdict in both orders, with its interval."""
    expected: float
    """The same for a judge who chooses places as often, but whatever stands there: 2·π₁·π₂ + π₌²."""
    kappa: float | None
    """(consistency - expected) / (1 - expected), 0 by chance, 1 at best (Scott 1955, over places); None where expected is 1."""
    p_chance: float
    """P(so many pairs or more agree by chance), binomial with `expected`."""
    first: float
    """Share of all choices, two a pair, that fell on the first place."""
    second: float
    tie: float
    bias: dict[str, float | None]
    """`first` - `second`, with its interval; 0 for a judge to whom places are equal."""

    @property
    def chance(self) -> bool:
        """Return whether its agreement with itself may be chance: then its verdicts say nothing."""
        return self.p_chance > LEVEL_OF_CHANCE

    @property
    def biased(self) -> bool:
        """Return whether it prefers a place."""
        value, low, high = (self.bias[key] or 0.0 for key in ("value", "low", "high"))
        return abs(value) > BIASED and (low > 0 or high < 0)

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object."""
        return asdict(self) | {"chance": self.chance, "biased": self.biased}


def agree(choices: Ints) -> Ints:
    """Return for (N, 2) choices in the two orders, (N,), whether they name the same answer: other places, or a tie twice."""
    a, b = choices[:, 0], choices[:, 1]
    same: Ints = ((a == TIE) & (b == TIE)) | ((a != TIE) & (b != TIE) & (a != b))
    return same


def judge_judge(choices: Ints, prompts: Sequence[int], seed: int, resamples: int = RESAMPLES) -> Judging:
    """Return how far a judge agrees with itself.

    Args:
        choices: (N, 2), N > 0; for each pair the choice with one answer first and with the other first.
        prompts: (N,) the prompt of each pair, numbered from 0; prompts are resampled.
        seed: of the bootstrap.
        resamples: how many draws.
    """
    from scipy.stats import binom

    count = len(choices)
    same = agree(choices)
    shares = [float((choices == place).mean()) for place in (FIRST, SECOND, TIE)]
    chance = 2 * shares[FIRST] * shares[SECOND] + shares[TIE] ** 2
    lean = ((choices == FIRST).astype(float) - (choices == SECOND)).mean(1)
    columns = np.stack([same.astype(float), lean], axis=1)
    clusters = np.unique(np.asarray(prompts), return_inverse=True)[1]
    weights: Floats = np.concatenate(list(resample(clusters, np.zeros(count, dtype=np.int64), resamples, seed)))
    draws = (weights @ columns) / weights.sum(1, keepdims=True)

    agreed, leaning = float(same.mean()), float(lean.mean())
    count_prompts = len(np.unique(clusters))
    return Judging(
        pairs=count,
        consistency=with_interval(agreed, draws[:, 0], count_prompts),
        expected=chance,
        kappa=None if chance > 1 - 1e-12 else (agreed - chance) / (1 - chance),
        p_chance=float(binom.sf(int(same.sum()) - 1, count, min(chance, 1.0))),
        first=shares[FIRST],
        second=shares[SECOND],
        tie=shares[TIE],
        bias=with_interval(leaning, draws[:, 1], count_prompts, limits=(-1.0, 1.0)),
    )
