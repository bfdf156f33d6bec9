"""From the scores of documents to the score of a task, for one or many weightings of the documents at once.

A bootstrap draws documents with replacement, which is the same as weighting each by how often it was drawn. Every
metric here takes weights of shape (B, N), B draws of N documents, and returns B values; weights of one give the plain score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


NONE = ""
"""The choice of an answer that chose nothing: never right, and no label."""


@dataclass(frozen=True)
class Table:
    """The scores of a task's N documents, as columns."""

    columns: dict[str, Floats]
    gold: Ints
    """Index of the gold label in `labels`; -1 where there is none."""
    pred: Ints
    """(repeats, N) Index of the label that each repeat chose; one row where nothing is repeated."""
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
        repeats: Sequence[Sequence[str | None]] = (),
    ) -> Table:
        """Return columns from lists; a document without a cluster is one of its own, without a stratum in the common one.

        Where documents were answered several times, columns hold the means and `repeats` what each repeat chose, in place of
        `pred`.
        """
        chosen = repeats or [pred]
        labels = sorted({x for row in (gold, *chosen) for x in row if x is not None})
        index = {label: i for i, label in enumerate(labels)}
        return cls(
            {k: np.asarray(v, dtype=np.float64) for k, v in columns.items()},
            gold=np.array([-1 if x is None else index[x] for x in gold], dtype=np.int64),
            pred=np.array([[-1 if x is None else index[x] for x in row] for row in chosen], dtype=np.int64),
            labels=labels,
            clusters=_codes([f"\0{i}" if c is None else c for i, c in enumerate(clusters)]),
            strata=_codes([s or "" for s in strata]),
            strata_names=list(dict.fromkeys(s or "" for s in strata)),
        )

    def __len__(self) -> int:
        return len(self.clusters)

    @cached_property
    def groups(self) -> Ints:
        """(strata,) The group of strata, out of which units are drawn, that each stratum belongs to (`group_strata`)."""
        return group_strata(self.clusters, self.strata)

    @cached_property
    def shares(self) -> Floats:
        """(strata,) What each stratum counts: 1 over the strata of its category, which stands before `/` in its name."""
        categories = _codes([stratum.partition("/")[0] for stratum in self.strata_names])
        counts: Floats = 1 / np.bincount(categories)[categories]
        return counts

    def ones(self) -> Floats:
        """Return the weighting (1, N) that counts every document once."""
        return np.ones((1, len(self)))

    def confusion(self, weights: Floats) -> Floats:
        """Return the weighted confusion matrices of each repeat, shape (repeats, B, labels, labels).

        Entry [r, b, g, p] is the weight of gold g chosen as p.
        """
        k = len(self.labels)
        counts: Floats = np.empty((len(self.pred), len(weights), k, k))
        for matrices, pred in zip(counts, self.pred, strict=True):
            cell = np.zeros((len(self), k * k))
            cell[np.arange(len(self)), self.gold * k + pred] = 1.0
            matrices[:] = (weights @ cell).reshape(-1, k, k)
        return counts


def _codes(values: Sequence[str]) -> Ints:
    """Return each value's number in order of first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(v, len(seen)) for v in values], dtype=np.int64)


def group_strata(clusters: Ints, strata: Ints) -> Ints:
    """Return the group of each stratum: its own, but strata that hold a single unit make one group.

    One unit says nothing of the spread within its stratum, so such strata are collapsed (Cochran 1977, section 5A.12), which errs
    on the wide side by the spread between them. A lone one joins the smallest of the others.

    Args:
        clusters: (N,) number of each document's cluster.
        strata: (N,) number of each document's stratum, 0 … S - 1; a cluster lies in that of its first document.

    Returns:
        (S,) numbers of groups, 0 … number of groups - 1.
    """
    first = np.unique(clusters, return_index=True)[1]
    size = np.bincount(strata[first], minlength=int(strata.max()) + 1)
    joined = np.flatnonzero(size < 2)
    if len(joined) == 1 and len(size) > 1:
        joined = np.argsort(size, kind="stable")[:2]
    group = np.arange(len(size))
    group[joined] = joined[0] if len(joined) else 0
    numbers: Ints = np.unique(group, return_inverse=True)[1]
    return numbers


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


def stratum_mean(table: Table, name: str, weights: Floats, shares: Floats) -> Floats:
    """Return the mean over strata, by their shares, of each stratum's weighted mean.

    A stratum of one unit, which a draw may leave out, is weighed against those that it is drawn with (`group_strata`): the mean
    of a group is Σ a w x / Σ a w with a = the stratum's share over its documents; a group's share is that of its strata.

    Args:
        table: N documents in S strata.
        name: the metric.
        weights: (B, N).
        shares: (S,) of the strata; they need not sum to 1.
    """
    group = table.groups
    share = np.bincount(group, weights=shares)
    # A group of one stratum needs no shares within it; without them the score of equal values is exactly that value.
    alone = np.bincount(group)[group] == 1
    part = np.where(alone, 1.0, shares / np.bincount(table.strata, minlength=len(shares)))[table.strata]
    member = np.eye(len(share))[group[table.strata]] * part[:, None]
    means = _ratio(weights @ (member * table.columns[name][:, None]), weights @ member)
    values: Floats = (means * share).sum(axis=1) / share.sum()
    return values


def macro_mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over strata of each stratum's weighted mean."""
    return stratum_mean(table, name, weights, np.ones(len(table.strata_names)))


def category_mean(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over categories of the mean over their strata; a category is what stands before `/` in a stratum's name.

    Only categories and strata that occur among the documents count.
    """
    return stratum_mean(table, name, weights, table.shares)


def f1_macro(table: Table, name: str, weights: Floats) -> Floats:
    """Return the mean over labels of F1 = 2 TP / (2 TP + FP + FN), over labels that occur as gold or choice.

    Of several repeats the mean.
    """
    confusion = table.confusion(weights)
    hit = np.einsum("rbkk->rbk", confusion)
    total = confusion.sum(axis=2) + confusion.sum(axis=3)
    total[..., [label == NONE for label in table.labels]] = 0.0
    values: Floats = _ratio(_ratio(2 * hit, total).sum(axis=2), (total > 0).sum(axis=2).astype(np.float64)).mean(axis=0)
    return values


def matthews(table: Table, name: str, weights: Floats) -> Floats:
    """Return the Matthews correlation, (c·s - Σ t_k p_k) / sqrt((s² - Σ p_k²)(s² - Σ t_k²)); 0 where the root is 0.

    c: right, s: all, t_k: times label k is gold, p_k: times it is chosen (Gorodkin 2004). Of several repeats the mean.
    """
    confusion = table.confusion(weights)
    right = np.einsum("rbkk->rb", confusion)
    gold, pred = confusion.sum(axis=3), confusion.sum(axis=2)
    total = gold.sum(axis=2)
    root = np.sqrt((total**2 - (pred**2).sum(axis=2)) * (total**2 - (gold**2).sum(axis=2)))
    values: Floats = _ratio(right * total - (gold * pred).sum(axis=2), root).mean(axis=0)
    return values


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
