"""Diagnosis of a curve: does the model lose the new tokens when it writes, or what it knew? A pure function."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from darumeru.watch.curve import Metrics, Point, best

MARGIN = 0.03
"""A change of less than this share of the best value is noise, whatever the interval says."""

_READS = "the model reads the new tokens but does not write them"
_ADVICE = {
    "reads-only": (
        f"{_READS}. Copying needs the output head: train it (untied, or with a higher learning rate than the "
        "embeddings, or first and alone), let weight decay touch only rows that a batch used, see that the corpus is "
        "tokenized with the new vocabulary, and keep the best checkpoint."
    ),
    "both-fall": (
        "the training does harm. The likely causes are a learning rate that is too high (halve it, lengthen the "
        "warm-up) and data (another language, markup, one long source in a row): look at the batches since the best "
        "step, and go back to its checkpoint."
    ),
}


@dataclass(frozen=True)
class Diagnosis:
    """A problem of the training, and its remedy."""

    kind: Literal["reads-only", "both-fall"]
    text: str


def diagnose(points: Sequence[Point], metrics: Metrics, margin: float = MARGIN) -> Diagnosis | None:
    """Return what DaruCopy and the likelihood say together.

    Each is held against its best value so far. It *falls* if it is worse by more than `margin` of that value and lies outside of
    its 95 % interval (where there is one). DaruCopy falls while the likelihood holds: the model reads the new tokens but does
    not write them. Both fall: the learning rate or the data.

    Args:
        points: the curve, in any order.
        metrics: what the suite measures.
        margin: a share of the best value.

    Returns:
        None where nothing falls, where only the likelihood does, or where the suite measures one of the two only.
    """
    copy = _first(points, _copies(metrics))
    likelihood = _first(points, _likelihoods(metrics))
    if copy is None or likelihood is None:
        return None
    if not _falls(points, copy, metrics, margin):
        return None
    kind: Literal["reads-only", "both-fall"]
    kind = "both-fall" if _falls(points, likelihood, metrics, margin) else "reads-only"
    verb = "fell too" if kind == "both-fall" else "held"
    told = (
        f"{_change(points, copy, metrics)} (copying fell), {_change(points, likelihood, metrics)} (likelihood {verb})"
    )
    return Diagnosis(kind, f"{told}: {_ADVICE[kind]}")


def _copies(metrics: Metrics) -> list[str]:
    """Return what measures copying, the Russian first."""
    ours = [n for n in (*metrics.groups, *metrics.tasks) if n.startswith(("darucopy", "cp_"))]
    return sorted(ours, key=lambda n: (not n.endswith("_ru"), n not in metrics.groups))


def _likelihoods(metrics: Metrics) -> list[str]:
    """Return what measures how well the model reads: bits per byte, else likelihoods of answers, else choices."""
    order = ("bpb_ru", "bpb_corpus", "bits_per_byte", "gold_likelihood", "choices", "darummlu", "darumera")
    return [n for n in order if n in metrics.titles]


def _first(points: Sequence[Point], names: Sequence[str]) -> str | None:
    """Return the first metric that two points have, so that it can have changed."""
    return next((n for n in names if sum(n in p.values for p in points) > 1), None)


def _ends(points: Sequence[Point], metric: str, metrics: Metrics) -> tuple[Point, Point] | None:
    """Return the best and the last point of a metric."""
    top = best(points, metric, metrics)
    last = max((p for p in points if metric in p.values), key=lambda p: p.step)
    return (top, last) if top is not None else None


def _falls(points: Sequence[Point], metric: str, metrics: Metrics, margin: float) -> bool:
    ends = _ends(points, metric, metrics)
    if ends is None:
        return True  # it is no number at all
    top, last = ends
    old, new = top.values[metric], last.values[metric]
    if math.isnan(new):
        return True
    low, high = top.bounds.get(metric, (old, old))
    worse = new - high if metric in metrics.lower else low - new
    return worse > 0 and abs(new - old) > margin * abs(old)


def _change(points: Sequence[Point], metric: str, metrics: Metrics) -> str:
    ends = _ends(points, metric, metrics)
    if ends is None:
        return f"{metric} is no number"
    top, last = ends
    return f"{metric} {top.values[metric]:.3f} at step {top.step} → {last.values[metric]:.3f} at step {last.step}"
