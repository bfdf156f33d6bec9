"""What the cells of a study say together: pure functions of their results.

Lower is better throughout: bits per byte of the first held-out text. A configuration is a cell's values without the seed. Two
kinds of chance are counted: which documents are held out (a bootstrap over documents, the same draws for all, so that differences
are paired), and which seed was drawn (the spread of seeds within configurations, taken as equal in all of them). Where no
configuration has two seeds, the second is not known, and intervals hold for these trainings only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from darumeru.scoring.aggregate import Floats
from darumeru.scoring.compare import Difference, difference, holm, shared_ranks
from darumeru.scoring.interval import degrees_of_sum, quantile
from lep.study.grid import SEED
from lep.study.results import Measured, Result

DRAWS = 1_000
LEAST = 4
"""Configurations below which a rank correlation has no interval."""


@dataclass(frozen=True)
class Configuration:
    """Cells that differ in the seed alone.

    Attributes:
        results: of the cells.
        text: the held-out text that decides.
    """

    results: tuple[Result, ...]
    text: str

    @property
    def values(self) -> dict[str, Any]:
        """Of each axis but the seed."""
        return {key: value for key, value in self.results[0].cell.values.items() if key != SEED}

    @property
    def control(self) -> bool:
        """The base in its own vocabulary."""
        return self.results[0].cell.control

    @property
    def key(self) -> str:
        """To tell it from others."""
        return self.results[0].cell.without(SEED)

    @property
    def ends(self) -> list[float]:
        """Bits per byte after training, a seed each."""
        return [r.model.texts[self.text].bits for r in self.results]

    @property
    def end(self) -> float:
        """Their mean."""
        return float(np.mean(self.ends))

    @property
    def start(self) -> float:
        """Mean bits per byte of the initialised models."""
        return float(np.mean([r.at_start(self.text) for r in self.results]))

    @property
    def original(self) -> float:
        """Bits per byte of the base, untrained and in its own vocabulary."""
        return self.results[0].original.texts[self.text].bits

    @property
    def symbols(self) -> float:
        """Symbols per token of the held-out text."""
        return self.results[0].model.texts[self.text].symbols_per_token

    @property
    def hours(self) -> float:
        """Of a cell, training and measuring."""
        return float(np.mean([r.seconds for r in self.results])) / 3600

    @property
    def operations_per_byte(self) -> float:
        """Of reading the held-out text."""
        return self.results[0].forward / self.results[0].model.texts[self.text].bytes_per_token

    def mean(self, what: str) -> float | None:
        """Return the mean over seeds of `copied` or of the suite's score (`suite`); None where it was not measured."""
        found = [r.model.copied if what == "copied" else (r.model.suite or {}).get("value") for r in self.results]
        return float(np.mean(found)) if found and all(value is not None for value in found) else None  # type: ignore[arg-type]


def configurations(results: Sequence[Result], text: str) -> list[Configuration]:
    """Return the configurations of cells that are done, in the order of the grid."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.cell.without(SEED), []).append(result)
    return [Configuration(tuple(group), text) for group in groups.values()]


def spread_of_seeds(groups: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Return the standard deviation between seeds, pooled, and its degrees of freedom; None with one seed each.

    Args:
        groups: values of each configuration.
    """
    df = sum(len(group) - 1 for group in groups)
    squares = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups)
    return (math.sqrt(squares / df), df) if df else None


@dataclass(frozen=True)
class Comparison:
    """Configurations against each other.

    Attributes:
        items: the configurations, M.
        documents: that are held out.
        spread: between seeds, see `spread_of_seeds`.
    """

    items: list[Configuration]
    documents: int
    spread: tuple[float, int] | None

    @classmethod
    def of(cls, items: Sequence[Configuration], study: Sequence[Configuration] = ()) -> Comparison:
        """Return the comparison of one or more configurations; the spread of seeds is that of the whole study, if given."""
        documents = len(items[0].results[0].model.texts[items[0].text].nats)
        return cls(list(items), documents, spread_of_seeds([item.ends for item in study or items]))

    @cached_property
    def weights(self) -> Floats:
        """(B, documents): how often each is drawn."""
        rng, count = np.random.default_rng(0), self.documents
        return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)

    @cached_property
    def of_documents(self) -> Floats:
        """(M, B) bits per byte with documents drawn anew, column b the same for all."""
        return np.stack(
            [np.mean([_bits(r.model, i.text, self.weights) for r in i.results], axis=0) for i in self.items]
        )

    @cached_property
    def draws(self) -> Floats:
        """(M, B) the same with the spread of seeds."""
        if self.spread is None:
            return self.of_documents
        noise = np.random.default_rng(1).normal(size=self.of_documents.shape)
        each = np.array([[self.spread[0] / math.sqrt(len(item.results))] for item in self.items])
        drawn: Floats = self.of_documents + noise * each
        return drawn

    @cached_property
    def df(self) -> float:
        """Degrees of freedom of a difference's standard error (Welch and Satterthwaite), of the median pair with the first."""
        documents = float(max(self.documents - 1, 1))
        if self.spread is None or len(self.items) < 2:
            return documents
        pairs = np.var(self.of_documents[1:] - self.of_documents[0], axis=1, ddof=1)
        own = 2 * self.spread[0] ** 2 / len(self.items[0].results)
        return degrees_of_sum([float(np.median(pairs)), own], [documents, self.spread[1]])

    @cached_property
    def ranks(self) -> list[int]:
        """1 the best; shared by those that cannot be told from the best of their rank."""
        values = np.array([item.end for item in self.items])
        return shared_ranks(-values, -self.draws, self.documents, df=self.df)

    def difference(self, one: int, other: int) -> Difference:
        """Return the paired difference, `other` − `one`, in bits per byte; below 0 the other is better."""
        return difference(
            self.items[one].end, self.items[other].end, self.draws[one], self.draws[other], self.documents, self.df
        )

    def against_original(self, place: int) -> Difference:
        """Return the paired difference of a configuration from its untrained original, in bits per byte."""
        item = self.items[place]
        before = _bits(item.results[0].original, item.text, self.weights)
        return difference(item.original, item.end, before, self.draws[place], self.documents, self.df)

    def against_controls(self) -> list[tuple[int, int, Difference, float]]:
        """Return each configuration against the control of its base and tokens: places of both, difference, Holm's p."""
        found = []
        for place, item in enumerate(self.items):
            control = next((i for i, c in enumerate(self.items) if c.control and _comparable(c, item)), None)
            if control is not None and not item.control:
                found.append((place, control, self.difference(control, place)))
        adjusted = holm([d.p if d.p is not None else 1.0 for _, _, d in found])
        return [(place, control, d, p) for (place, control, d), p in zip(found, adjusted, strict=True)]


def _bits(model: Measured, text: str, weights: Floats) -> Floats:
    read = model.texts[text]
    drawn: Floats = weights @ read.nats / (weights @ read.bytes) / math.log(2)
    return drawn


def _comparable(control: Configuration, other: Configuration) -> bool:
    """Return whether a control was trained as a configuration was: all that both have is equal but the vocabulary."""
    return all(
        value == other.values.get(key)
        for key, value in control.values.items()
        if value is not None and key.partition(".")[0] != "vocab"
    )


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ of N pairs, with the interval of Bonett and Wright (2000); None where N is too small."""

    value: float | None
    low: float | None
    high: float | None
    count: int


def rank_correlation(starts: Sequence[float], ends: Sequence[float]) -> RankCorrelation:
    """Return Spearman's rank correlation: tanh(atanh ρ ± z √((1 + ρ²/2) / (N − 3))).

    Args:
        starts: of each configuration.
        ends: of each configuration.
    """
    from scipy.stats import rankdata

    count = len(starts)
    if count < 3 or len(set(starts)) < 2 or len(set(ends)) < 2:
        return RankCorrelation(None, None, None, count)
    value = float(np.corrcoef(rankdata(starts), rankdata(ends))[0, 1])
    if count < LEAST or abs(value) > 1 - 1e-12:
        return RankCorrelation(value, None, None, count)
    half = quantile() * math.sqrt((1 + value**2 / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(value) + way * half) for way in (-1, 1))
    return RankCorrelation(value, low, high, count)


def longest(items: Sequence[Configuration]) -> list[Configuration]:
    """Return those that were trained with the most tokens: starts and ends are compared at one length."""
    most = max(item.results[0].cell.tokens for item in items)
    return [item for item in items if item.results[0].cell.tokens == most]


def levels(item: Configuration) -> dict[str, str]:
    """Return the factors of a configuration as an analysis of variance takes them."""
    return {key: text for key, text in item.results[0].cell.labels.items() if key != SEED}


@dataclass(frozen=True)
class Recommendation:
    """What to take, and how sure that is.

    Attributes:
        chosen: of those that share the first rank, the one that reads a byte with the fewest operations.
        best: the one with the lowest bits per byte.
        shared: how many share the first rank.
        behind: difference of the first that does not, from the best; None where all share it.
    """

    chosen: Configuration
    best: Configuration
    shared: int
    behind: Difference | None


def recommend(comparison: Comparison) -> Recommendation:
    """Return the recommendation: among the configurations that cannot be told from the best, the cheapest to use."""
    items, ranks = comparison.items, comparison.ranks
    best = min(range(len(items)), key=lambda i: items[i].end)
    first = [i for i, rank in enumerate(ranks) if rank == 1]
    rest = [i for i in range(len(items)) if i not in first]
    chosen = min(first, key=lambda i: (items[i].operations_per_byte, items[i].end))
    behind = min(rest, key=lambda i: items[i].end, default=None)
    return Recommendation(
        items[chosen],
        items[best],
        len(first),
        None if behind is None else comparison.difference(best, behind),
    )


def costs(items: Sequence[Configuration]) -> list[dict[str, float | None]]:
    """Return what each configuration cost for what it gained over its untrained original: hours and operations per 0.1 bit."""
    found: list[dict[str, float | None]] = []
    for item in items:
        gain = item.original - item.end
        flop = float(np.mean([r.flop for r in item.results]))
        found.append(
            {"gain": gain, "hours": item.hours, "flop": flop,
             "hours_per_gain": item.hours / gain / 10 if gain > 0 else None,
             "flop_per_gain": flop / gain / 10 if gain > 0 else None}
        )  # fmt: skip
    return found
