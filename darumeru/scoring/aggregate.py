"""From the scores of documents to the score of a task, for one or many weightings of the documents at once.

A bootstrap draws documents with replacement, which is the same as weighting each by how often it was drawn. Every
metric here takes weights of shape (B, N), B draws of N documents, and returns B values; weights of one give the plain score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """The scores of a task's N documents, as columns."""

    columns: dict[str, Floats]
    gold: Ints
    """Index of the gold label in `labels`; -1 where there is none."""
    pred: Ints
    labels: list[str]
    clusters: Ints
    """Index of each document's cluster, 0 … number of clusters - 1."""
    strata: Ints
    """Index of each document's stratum, 0 … number of strata - 1."""
    strata_names: list[str]
    """By that index; `category/subject` where strata belong to categories, empty for the common stratum."""

    @classmethod
    def build(
        cls,
        columns: dict[str, list[float]],
        gold: Sequence[str | None],
        pred: Sequence[str | None],
        clusters: Sequence[str | None],
        strata: Sequence[str | None],
    ) -> Table:
        """Return columns from lists; a document without a cluster is one of its own, without a stratum in the common one."""
        labels = sorted({x for x in (*gold, *pred) if x is not None})
        index = {label: i for i, label in enumerate(labels)}
        return cls(
            {k: np.asarray(v, dtype=np.float64) for k, v in columns.items()},
            gold=np.array([-1 if x is None else index[x] for x in gold], dtype=np.int64),
            pred=np.array([-1 if x is None else index[x] for x in pred], dtype=np.int64),
            labels=labels,
            clusters=_codes([f"\0{i}" if c is None else c for i, c in enumerate(clusters)]),
            strata=_codes([s or "" for s in strata]),
            strata_names=list(dict.fromkeys(s or "" for s in strata)),
        )

    def __len__(self) -> int:
        return len(self.clusters)

    def ones(self) -> Floats:
        """Return the weighting (1, N) that counts every document once."""
        return np.ones((1, len(self)))

    def confusion(self, weights: Floats) -> Floats:
        """Return the weighted confusion matrices, shape (B, labels, labels): [b, g, p] is the weight of gold g chosen as p."""
        k = len(self.labels)
        cell = np.zeros((len(self), k * k))
        cell[np.arange(len(self)), self.gold * k + self.pred] = 1.0
        counts: Floats = (weights @ cell).reshape(-1, k, k)
        return counts


def _codes(values: Sequence[str]) -> Ints:
    """Return each value's number in order of first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values], dtype=np.int64)


class Aggregate(Protocol):
    """Aggregate of the documents' values of one metric: the task's value."""

    def __call__(self, table: Table, name: str, weights: Floats) -> Floats:
        """Return values of shape (B,) for weights of shape (B, N)."""
        ...


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return the quotient, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)


def mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the weighted mean over documents."""
    return _ratio(weights @ table.columns[name], weights.sum(axis=1))


accuracy: Aggregate = mean


def bits_per_byte(table: Table, name: str, weights: Floats) -> Floats:
    """Return the sum of column `bits` over the sum of column `bytes`: compares across tokenizers, as perplexity does not."""
    return _ratio(weights @ table.columns["bits"], weights @ table.columns["bytes"])


def _strata_means(table: Table, name: str, weights: Floats) -> Floats:
    """Return the weighted mean of each stratum, shape (B, strata)."""
    member = np.eye(len(table.strata_names))[table.strata]
    return _ratio((weights * table.columns[name]) @ member, weights @ member)


def macro_mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over strata of each stratum's weighted mean."""
    means: Floats = _strata_means(table, name, weights).mean(axis=1)
    return means


def category_mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over categories of the mean over their strata; a category is what stands before `/` in a stratum's name.

    Only categories and strata that occur among the documents count.
    """
    categories = _codes([stratum.partition("/")[0] for stratum in table.strata_names])
    member = np.eye(int(categories.max()) + 1)[categories]
    means: Floats = (_strata_means(table, name, weights) @ (member / member.sum(axis=0))).mean(axis=1)
    return means


def f1_macro(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over labels of F1 = 2 TP / (2 TP + FP + FN), over labels that occur as gold or choice."""
    confusion = table.confusion(weights)
    hit = np.einsum("bkk->bk", confusion)
    total = confusion.sum(axis=1) + confusion.sum(axis=2)
    return _ratio(_ratio(2 * hit, total).sum(axis=1), (total > 0).sum(axis=1).astype(np.float64))


def matthews(table: Table, name: str, weights: Floats) -> Floats:
    """Return the Matthews correlation, (c·s - Σ t_k p_k) / sqrt((s² - Σ p_k²)(s² - Σ t_k²)); 0 where the root is 0.

    c: right, s: all, t_k: times label k is gold, p_k: times it is chosen (Gorodkin 2004).
    """
    confusion = table.confusion(weights)
    right = np.einsum("bkk->b", confusion)
    gold, pred = confusion.sum(axis=2), confusion.sum(axis=1)
    total = gold.sum(axis=1)
    root = np.sqrt((total**2 - (pred**2).sum(axis=1)) * (total**2 - (gold**2).sum(axis=1)))
    return _ratio(right * total - (gold * pred).sum(axis=1), root)


def cluster_sum(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over clusters of the sum of a cluster's values (an exam's grade is the sum of its items' points).

    A cluster is drawn as a whole, so that all its documents have one weight.
    """
    first = np.unique(table.clusters, return_index=True)[1]
    return _ratio(weights @ table.columns[name], weights[:, first].sum(axis=1))


AGGREGATES: dict[str, Aggregate] = {
    "mean": mean,
    "bits_per_byte": bits_per_byte,
    "macro_mean": macro_mean,
    "category_mean": category_mean,
    "f1_macro": f1_macro,
    "matthews": matthews,
    "cluster_sum": cluster_sum,
}
"""By the names under which a record states them."""


def name_of(aggregate: Aggregate) -> str | None:
    """Return the name in `AGGREGATES`; None for an aggregate that a task brings of its own."""
    return next((name for name, known in AGGREGATES.items() if known is aggregate), None)
