"""Strengths from pairwise comparisons: the model of Bradley and Terry (1952), with intervals by a bootstrap over prompts.

P(i beats j) = 1 / (1 + exp(s_j - s_i)). A tie counts as half a win for each side, so a strength answers the question what share
of the points a model gets. (Davidson's model, 1970, would take ties out of the strengths; but where a judge's two orders
disagree, the tie says that no difference was seen, and that must pull strengths together.)

The likelihood alone is unbounded where a model won or lost everything. So every pair gets `PRIOR` = ½ virtual wins on either
side, Jeffreys' prior of a proportion: ten wins of ten are 21 to 1, not infinity to 1.

The bootstrap is the Bayesian one (Rubin 1981): each draw weighs the prompts by exponential numbers of mean 1, and the virtual
wins by gamma numbers of mean ½. For one pair without ties a drawn share is then just a draw from its posterior, so the interval
of a model that won everything does not shrink to a point, as it would if prompts were only drawn with replacement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from darumeru.scoring.aggregate import Floats
from darumeru.scoring.bootstrap import RESAMPLES
from darumeru.scoring.interval import percentiles

PRIOR = 0.5
"""Virtual wins of each side against each other."""

ELO = 400 / math.log(10)
"""Elo points for one unit of strength: 400 points are odds of 10 to 1."""

ELO_MEAN = 1000.0
"""The mean of all models in Elo points."""


def strengths(wins: Floats) -> Floats:
    """Return the maximum-likelihood strengths, by Newton's method, for many tables at once.

    Args:
        wins: (…, M, M); [i, j] the points that i got against j, the prior among them, so that all off the diagonal are > 0.

    Returns:
        (…, M) strengths, their mean 0.
    """
    m = wins.shape[-1]
    wins = wins * (1 - np.eye(m))
    games = wins + np.swapaxes(wins, -1, -2)
    s = np.zeros(wins.shape[:-1])
    for _ in range(200):
        p = 1 / (1 + np.exp(s[..., None, :] - s[..., :, None]))
        gradient = (wins - games * p).sum(-1)
        weight = games * p * (1 - p)
        # Strengths are known up to a constant; the ones fix it and change no difference.
        hessian = weight.sum(-1)[..., None] * np.eye(m) - weight + 1 / m
        # The likelihood is concave; short steps keep Newton's method from leaving where its parabola means something.
        step = np.clip(np.linalg.solve(hessian, gradient[..., None])[..., 0], -1, 1)
        s = s + step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    centred: Floats = s - s.mean(-1, keepdims=True)
    return centred


def expected(s: Floats) -> Floats:
    """Return the share of points that each model is expected to get against the others, one with another: (…, M) → (…, M)."""
    m = s.shape[-1]
    p = 1 / (1 + np.exp(s[..., None, :] - s[..., :, None]))
    share: Floats = (p * (1 - np.eye(m))).sum(-1) / (m - 1)
    return share


@dataclass(frozen=True)
class BradleyTerry:
    """Strengths of M models, from P prompts, with their bootstrap values."""

    wins: Floats
    """(M, M) points that i got against j, without the prior."""
    strength: Floats
    """(M,), mean 0."""
    wins_draws: Floats
    """(B, M, M) bootstrap values of `wins`, with drawn virtual wins."""
    strength_draws: Floats
    """(B, M)."""

    def elo(self, i: int) -> dict[str, float]:
        """Return the strength of a model in Elo points with its interval."""
        low, high = percentiles(self.strength_draws[:, i])
        value = float(self.strength[i])
        return {k: ELO_MEAN + ELO * v for k, v in (("value", value), ("low", low), ("high", high))}

    def share(self, i: int, j: int | None = None) -> dict[str, float | None]:
        """Return the share of the points that i got against j, or against all, with its interval; None where there are none."""
        others = [k for k in range(len(self.strength)) if k != i] if j is None else [j]
        got, lost = self.wins[i, others].sum(), self.wins[others, i].sum()
        if got + lost == 0:
            return {"value": None, "low": None, "high": None}
        drawn_got, drawn_lost = self.wins_draws[:, i, others].sum(-1), self.wins_draws[:, others, i].sum(-1)
        low, high = percentiles(drawn_got / (drawn_got + drawn_lost))
        value = float(got / (got + lost))
        # The virtual wins pull a share of 0 or 1 inwards; an interval holds its value.
        return {"value": value, "low": min(low, value), "high": max(high, value)}

    @property
    def groups(self) -> list[list[int]]:
        """Return the models in groups within which strengths are known; between groups only the prior bounds them.

        The likelihood has a maximum if every model reaches every other by a chain of points (Ford 1957): one group. A model
        that lost no point, or got none, is a group of its own.
        """
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        count, label = connected_components(csr_array(self.wins > 0), directed=True, connection="strong")
        found = [[int(i) for i in np.flatnonzero(label == k)] for k in range(count)]
        return sorted(found, key=lambda group: -float(self.strength[group].mean()))


def fit(points: Floats, seed: int, resamples: int = RESAMPLES) -> BradleyTerry:
    """Return strengths and their bootstrap values.

    Args:
        points: (P, M, M); [p, i, j] the points that i got against j on prompt p: 1, ½ or 0; both 0 where nothing was judged.
        seed: of the draws.
        resamples: how many draws; each weighs a prompt with all that was judged on it.
    """
    count, m, _ = points.shape
    prior = PRIOR * (1 - np.eye(m))
    total: Floats = points.sum(0)
    if not total.any():
        raise ValueError("no comparison was judged")
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=(resamples, count))
    virtual = rng.gamma(PRIOR, size=(resamples, m, m))
    # A smaller virtual win has no meaning, but could leave the range in which Newton's method is exact.
    virtual = np.maximum(virtual, 1e-4) * (1 - np.eye(m))
    drawn = (weights @ points.reshape(count, m * m)).reshape(-1, m, m) + virtual
    return BradleyTerry(total, strengths(total + prior), drawn, strengths(drawn))
