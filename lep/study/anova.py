"""An analysis of variance by least squares, for grids that are not whole and have few repetitions.

Assumed: effects add up (two-factor interactions are in the model, higher ones count as error), and errors are independent, normal
and of one variance. Where the error has fewer than `FEWEST` degrees of freedom, nothing is tested.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from darumeru.scoring.aggregate import Floats
from darumeru.scoring.interval import student

FEWEST = 3
"""Degrees of freedom of the error below which an F test has next to no power and depends wholly on the assumptions."""


@dataclass(frozen=True)
class Effect:
    """A main effect, or the interaction of two factors.

    Attributes:
        factors: one or two.
        df: its degrees of freedom.
        squares: sum of squares, after all effects that do not contain it (type II).
        share: of the sum of all squares, η².
        f: F statistic; None where nothing can be tested.
        p: of it.
    """

    factors: tuple[str, ...]
    df: int
    squares: float
    share: float
    f: float | None
    p: float | None


@dataclass(frozen=True)
class Anova:
    """The analysis.

    Attributes:
        effects: main effects, then interactions that the data can tell from main effects.
        df: degrees of freedom of the error.
        variance: of the error; None without degrees of freedom.
        residuals: (N,).
        count: N.
    """

    effects: list[Effect]
    df: int
    variance: float | None
    residuals: Floats
    count: int

    @property
    def testable(self) -> bool:
        """The error is known well enough."""
        return self.df >= FEWEST and bool(self.variance)


@dataclass(frozen=True)
class Contrast:
    """A level against the first of its factor, other factors held equal: level − first, with Student's interval."""

    factor: str
    first: str
    level: str
    value: float
    low: float | None
    high: float | None


def analyse(values: Floats, levels: Sequence[Mapping[str, str]]) -> Anova:
    """Return the analysis of variance of N values.

    Type II sums of squares: of an effect, the fall of the residual sum of squares when it joins all effects that do not contain
    it. They do not depend on the order of factors, and on empty cells only as far as degrees of freedom are lost.

    Args:
        values: (N,).
        levels: of each value: factor → level. Factors with one level are left out.
    """
    from scipy.stats import f as f_distribution

    coded = _coded(levels)
    terms: list[tuple[str, ...]] = [(name,) for name in coded]
    terms += list(itertools.combinations(coded, 2))
    full, rank = _residual(values, coded, terms)
    df = len(values) - rank
    variance = full / df if df else None
    total = float(((values - values.mean()) ** 2).sum())
    testable = df >= FEWEST and variance is not None and variance > 1e-12 * max(total, 1e-300)
    effects = []
    for term in terms:
        others = [t for t in terms if not set(term) <= set(t)]
        without, low = _residual(values, coded, others)
        beside, high = _residual(values, coded, [*others, term])
        if (own := high - low) == 0:
            continue
        squares = max(without - beside, 0.0)
        f = squares / own / variance if testable and variance else None
        p = None if f is None else float(f_distribution.sf(f, own, df))
        effects.append(Effect(term, own, squares, squares / total if total else 0.0, f, p))
    columns = _columns(coded, terms, len(values))
    residuals = values - columns @ np.linalg.lstsq(columns, values, rcond=None)[0]
    return Anova(effects, df, variance, residuals, len(values))


def contrasts(
    values: Floats, levels: Sequence[Mapping[str, str]], factor: str, first: str | None = None
) -> list[Contrast]:
    """Return each level of a factor against one of them, from the additive model, in which other factors are held equal.

    Only those combinations of the other factors count that have values of both levels. Intervals are Student's; None where fewer
    than `FEWEST` degrees of freedom are left.

    Args:
        values: (N,).
        levels: of each value: factor → level.
        factor: whose levels are compared.
        first: the one that the others are compared with; the one that comes first where None, or where it does not occur.
    """
    order = sorted(dict.fromkeys(level[factor] for level in levels), key=lambda level: level != first)
    found = []
    for level in order[1:]:
        places = _both(levels, factor, (order[0], level))
        if not places:
            continue
        some = [levels[i] for i in places]
        y = values[places]
        # Every combination of the other factors has a mean of its own: pairs are compared within it.
        blocks = [_rest(one, factor) for one in some]
        names = list(dict.fromkeys(blocks))
        block = np.array([[float(b == n) for n in names] for b in blocks])
        chosen = np.array([float(one[factor] == level) for one in some])[:, None]
        matrix = np.concatenate([block, chosen], axis=1)
        solution, _, rank, _ = np.linalg.lstsq(matrix, y, rcond=None)
        df = len(y) - int(rank)
        rest = y - matrix @ solution
        low = high = None
        if df >= FEWEST:
            error = math.sqrt(float(rest @ rest) / df * float(np.linalg.pinv(matrix.T @ matrix)[-1, -1]))
            low, high = student(float(solution[-1]), error, df)
        found.append(Contrast(factor, order[0], level, float(solution[-1]), low, high))
    return found


def _both(levels: Sequence[Mapping[str, str]], factor: str, pair: tuple[str, str]) -> list[int]:
    """Return the places whose combination of the other factors has values of both levels."""
    seen: dict[tuple[str, ...], set[str]] = {}
    for one in levels:
        seen.setdefault(_rest(one, factor), set()).add(one[factor])
    return [i for i, one in enumerate(levels) if one[factor] in pair and {*pair} <= seen[_rest(one, factor)]]


def _rest(one: Mapping[str, str], factor: str) -> tuple[str, ...]:
    return tuple(value for name, value in one.items() if name != factor)


def _coded(levels: Sequence[Mapping[str, str]]) -> dict[str, Floats]:
    """Return sum coding (each level against the mean of all) of the factors with several levels, N x (levels - 1)."""
    found = {}
    for name in levels[0] if levels else ():
        order = list(dict.fromkeys(level[name] for level in levels))
        if len(order) > 1:
            contrast = np.vstack([np.eye(len(order) - 1), -np.ones(len(order) - 1)])
            found[name] = contrast[[order.index(level[name]) for level in levels]]
    return found


def _columns(coded: Mapping[str, Floats], terms: Sequence[tuple[str, ...]], count: int) -> Floats:
    parts = [np.ones((count, 1))]
    for term in terms:
        one, *other = (coded[name] for name in term)
        parts.append(one if not other else np.einsum("ij,ik->ijk", one, other[0]).reshape(count, -1))
    return np.concatenate(parts, axis=1)


def _residual(values: Floats, coded: Mapping[str, Floats], terms: Sequence[tuple[str, ...]]) -> tuple[float, int]:
    """Return the residual sum of squares of a model, and its rank."""
    columns = _columns(coded, terms, len(values))
    solution, _, rank, _ = np.linalg.lstsq(columns, values, rcond=None)
    rest = values - columns @ solution
    return float(rest @ rest), int(rank)
