"""Confidence sequences: intervals for the score of a whole benchmark that hold at every look at once.

The score is a mean over K tasks, each the sum of w·v over its units (documents, exams): v in [low, high], weights w of a task
sum to one. Units are drawn without replacement, the next one with a probability proportional to its weight. If of a task the
sum s is known and the weight r is left, the next unit's v gives s + r·v, whose expectation, whatever was seen before, is the
task's score on the whole benchmark. A round draws some units of every task; the mean over tasks of these estimates is Z, with
expectation μ, the score. It is known part + Σ c·v with c = r / (K · units of the task in this round).

For a stake λ ≥ 0 and guesses g that are made before the round,

    M(m) = Π over rounds of exp(-λ (m - known - Σ c g)) · Π over units of (1 + λ c (v - g))

is at m = μ a product of factors with conditional expectation (1 + x) exp(-x) ≤ 1, so it exceeds 2/α at any time with probability
at most α/2 (Ville 1939). All m with a larger M are refuted; the same with -λ refutes from above. This is the bet of Waudby-Smith
and Ramdas (2024, JRSS B 86:1, arXiv 2010.09686); their empirical Bernstein sequence, with a quadratic bound in place of the
logarithm of 1 + λ c (v - g), is wider. Since m stands in the exponent alone, units of many tasks add up although only their mean
is looked for, and a unit moves M by its own share of the score, not by a whole round's.

A true difference η to a refuted m is found soonest with λ = η / (variance of Z), so a mixture over some η (Robbins 1970; Howard
et al. 2021, arXiv 1810.08240) is bet on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from darumeru.scoring.aggregate import Floats

EFFECTS = tuple(0.003 * 2**i for i in range(7))
"""Differences that are bet on, 0.3 to 19.2 points: a mixture of equal parts."""

BOLDNESS = 0.8
"""Largest share of the capital that a unit may lose."""

PRIOR = 0.25
"""Variance of a unit before any was seen; counts as `PRIOR_UNITS` units."""

PRIOR_UNITS = 4


class ConfidenceSequence:
    """The interval of a benchmark's score as its units are drawn.

    Args:
        tasks: K, over which the score is the mean.
        low: least possible value of a unit; 0 for a score, -1 for a difference of two.
        high: largest.
        alpha: probability that the interval ever excludes the score.
        effects: distances between the score and what is refuted that are bet on.
        shape: of leading axes, where many sequences run at once (simulations).

    Attributes:
        low: (shape) lower bound after the rounds so far, never falling.
        high: upper bound, never rising.
    """

    def __init__(
        self,
        tasks: int,
        low: float = 0.0,
        high: float = 1.0,
        alpha: float = 0.05,
        effects: Sequence[float] = EFFECTS,
        shape: tuple[int, ...] = (),
    ) -> None:
        self._range = (low, high)
        self._threshold = math.log(2 / alpha)
        self._effects = np.asarray(effects, dtype=float)
        self.low: Floats = np.full(shape, low)
        self.high: Floats = np.full(shape, high)
        self._rest = np.ones((*shape, tasks))
        self._known = np.zeros((*shape, tasks))
        self._count = np.zeros(tasks)
        self._sum, self._squares = np.zeros((*shape, tasks)), np.zeros((*shape, tasks))
        # log M(m) is gain - stake · m from below, gain + stake · m from above: an entry for each side and effect.
        self._gain, self._stake = (np.zeros((*shape, 2, len(self._effects))) for _ in range(2))

    @property
    def estimate(self) -> Floats:
        """Return the middle of the interval."""
        middle: Floats = (self.low + self.high) / 2
        return middle

    @property
    def half_width(self) -> Floats:
        """Return half the width of the interval."""
        half: Floats = (self.high - self.low) / 2
        return half

    def add(self, values: Sequence[Floats], weights: Sequence[Floats]) -> None:
        """Take a round.

        Args:
            values: for each task the values of its new units in the order in which they were drawn, (shape, units); none of a
                task of which all units were drawn before.
            weights: of these units in their task.

        Raises:
            ValueError: a task of which units are left has none in the round, or a value is out of range.
        """
        low, high = self._range
        tasks = len(values)
        known = np.zeros_like(self.low)
        units: list[tuple[Floats, ...]] = []
        for k, (v, w) in enumerate(zip(values, weights, strict=True)):
            if not v.shape[-1]:
                if np.any(self._rest[..., k] > 1e-9):
                    raise ValueError(f"task {k} has units left, but none in this round")
                known = known + self._known[..., k]
                continue
            if v.min() < low - 1e-9 or v.max() > high + 1e-9:
                raise ValueError(f"task {k} has a value outside [{low}, {high}]")
            gained, passed = np.cumsum(w * v, axis=-1), np.cumsum(w, axis=-1)
            rest = np.maximum(self._rest[..., k, None] - passed + w, 0.0)
            known = known + (self._known[..., k, None] + gained - w * v).mean(axis=-1)
            # What stakes may depend on is known before the round: not the weights of the units that it draws.
            foreseen = (self._rest[..., k] / (tasks * v.shape[-1]), *self._foreseen(k))
            shape = np.broadcast_shapes(v.shape, rest.shape)
            units.append(
                (
                    np.broadcast_to(v, shape),
                    rest / (tasks * v.shape[-1]),
                    *(np.broadcast_to(x[..., None], shape) for x in foreseen),
                )
            )
            self._known[..., k] += gained[..., -1]
            self._rest[..., k] = np.maximum(self._rest[..., k] - passed[..., -1], 0.0)
            self._count[k] += v.shape[-1]
            self._sum[..., k] += v.sum(axis=-1)
            self._squares[..., k] += (v**2).sum(axis=-1)
        if units:
            self._bet(known / tasks, *(np.concatenate(part, axis=-1) for part in zip(*units, strict=True)))
        self._narrow()

    def _foreseen(self, k: int) -> tuple[Floats, Floats]:
        """Return mean and variance that a task's units seem to have, from those before this round."""
        middle, count = sum(self._range) / 2, self._count[k] + PRIOR_UNITS
        mean = (self._sum[..., k] + PRIOR_UNITS * middle) / count
        squares = self._squares[..., k] + PRIOR_UNITS * (PRIOR + middle**2)
        return mean, np.maximum(squares / count - mean**2, 1e-6)

    def _bet(
        self, known: Floats, value: Floats, share: Floats, largest: Floats, guess: Floats, variance: Floats
    ) -> None:
        """Bet on a round; (shape, units) each.

        Args:
            known: part of Z that does not depend on the values of this round's units.
            value: of the units.
            share: c, by which Z changes with a unit's value.
            largest: what `share` is at most, known before the round.
            guess: of the value.
            variance: of the value, as it seems.
        """
        low, high = self._range
        spread = (largest**2 * variance).sum(axis=-1)
        sides = np.stack([largest * (guess - low), largest * (high - guess)], axis=-2).max(axis=-1)  # (shape, 2)
        most = BOLDNESS / np.maximum(sides, 1e-12)
        with np.errstate(divide="ignore"):
            stake = np.minimum(self._effects / np.maximum(spread, 1e-12)[..., None, None], most[..., None])
        surprise = share * (value - guess)
        centre = known + (share * guess).sum(axis=-1)
        for side, sign in ((0, 1.0), (1, -1.0)):
            bet = sign * stake[..., side, :]
            self._gain[..., side, :] += bet * centre[..., None] + np.log1p(
                bet[..., None, :] * surprise[..., :, None]
            ).sum(axis=-2)
        self._stake += stake

    def _narrow(self) -> None:
        low, high = self._range
        tasks = self._rest.shape[-1]
        known, rest = self._known.sum(axis=-1) / tasks, self._rest.sum(axis=-1) / tasks
        # What is still to come cannot lead out of these.
        lower = np.maximum(self._refuted(0), known + low * rest)
        upper = np.minimum(self._refuted(1), known + high * rest)
        lower, upper = np.maximum(lower, self.low), np.minimum(upper, self.high)
        over = rest < 1e-12
        lower, upper = np.where(over, known, lower), np.where(over, known, upper)
        agree = lower <= upper  # else the sequence has missed the score, as it may with probability alpha
        self.low, self.high = np.where(agree, lower, self.low), np.where(agree, upper, self.high)

    def _refuted(self, side: int) -> Floats:
        """Return the bound to which scores are refuted, from below (0) or above (1), by bisection."""
        low, high = (np.full_like(self.low, x) for x in self._range)
        gain, stake = self._gain[..., side, :], self._stake[..., side, :]
        sign = 1.0 if side == 0 else -1.0
        threshold = self._threshold + math.log(len(self._effects))
        for _ in range(40):
            middle = (low + high) / 2
            log = gain - sign * stake * middle[..., None]
            top = log.max(axis=-1)
            refuted = top + np.log(np.exp(log - top[..., None]).sum(axis=-1)) >= threshold
            up = refuted == (side == 0)
            low, high = np.where(up, middle, low), np.where(up, high, middle)
        return low if side == 0 else high
