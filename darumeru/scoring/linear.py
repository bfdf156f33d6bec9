"""Scores that are sums over documents: which aggregates are, and with which weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from darumeru.scoring.aggregate import Aggregate, Floats, Table


def document_weights(aggregate: Aggregate, table: Table) -> Floats | None:
    """Return the weights w, (N,), for which an aggregate is Σ w·v over the documents' values v; None if there are none.

    They are read off the aggregate itself, which gives each stratum's weight if its documents are worth 1 and all others 0; the
    documents of a stratum share it equally. Random values show whether that is so: of means over documents, exams or strata it
    is; of F1, Matthews correlation and other functions of all answers it is not.

    Args:
        aggregate: of one metric.
        table: clusters and strata of the documents; its values do not matter.
    """
    size = len(table)
    plain = np.zeros(size, dtype=np.int64)

    def value(values: Floats) -> float:
        probe = replace(table, columns={"v": values}, gold=plain, pred=plain, labels=["-"])
        return float(aggregate(probe, "v", probe.ones())[0])

    weights = np.zeros(size)
    try:
        for stratum in np.unique(table.strata):
            inside = table.strata == stratum
            weights[inside] = value(inside.astype(float)) / inside.sum()
        probes = np.random.default_rng(0).random((3, size))
        fits = all(abs(value(v) - float(weights @ v)) < 1e-9 * max(1.0, weights.sum()) for v in probes)
    except KeyError:  # it reads columns of its own
        return None
    return weights if fits and bool(np.all(weights > 0)) else None
