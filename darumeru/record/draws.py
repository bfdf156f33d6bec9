"""From a record to bootstrap draws that can be paired: which documents, which aggregates, which weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darumeru.files import fingerprint
from darumeru.record.sample import Sample, table_of
from darumeru.record.scores import TaskResult
from darumeru.scoring import draws
from darumeru.scoring.aggregate import (
    AGGREGATES,
    Aggregate,
    Floats,
    Table,
    cluster_sum,
    f1_macro,
    macro_mean,
    matthews,
    mean,
)
from darumeru.scoring.bootstrap import RESAMPLES, draw_counts, resample, scale, units

# -- which documents ----------------------------------------------------------------------------------------------------


def first_split(data: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Return name and source of the split that was tested: the first that a header names for a task."""
    for name, source in (data or {}).items():
        return str(name), dict(source)
    return "test", {}


def documents_key(data: Mapping[str, Any] | None, samples: Sequence[Sample]) -> str:
    """Return the fingerprint of which documents were asked and which belong together; the wording does not matter.

    Only results with equal keys can be paired.
    """
    test = first_split(data)[1]
    source = test.get("sha256") or [test.get("source"), test.get("revision"), test.get("rows")]
    return fingerprint([source, [[s.id, s.cluster, s.stratum] for s in samples]])


def contents_key(samples: Sequence[Sample]) -> str:
    """Return the fingerprint of the documents themselves and of which belong together, whatever they are said to come from."""
    return fingerprint([[s.id, s.doc, s.cluster, s.stratum] for s in samples])


# -- which aggregates ---------------------------------------------------------------------------------------------------


def aggregates_of(result: TaskResult, table: Table, whole: bool = True) -> dict[str, Aggregate] | None:
    """Return how each primary metric of a task is aggregated; None if the documents do not give the recorded values so.

    Args:
        result: what the record states of the task.
        table: the documents, with the columns of the primary metrics.
        whole: whether the table holds all documents of the record, so that the recorded values must come out.
    """
    found: dict[str, Aggregate] = {}
    for name in result.primary:
        stated = AGGREGATES.get(result.aggregates.get(name) or "")
        value = float(result.metrics[name].value or 0.0)
        if stated is None:
            aggregate = _guessed(name, table, value, whole)
        else:
            aggregate = stated if not whole or _gives(stated, table, name, value) else None
        if aggregate is None:
            return None
        found[name] = aggregate
    return found


def _gives(aggregate: Aggregate, table: Table, name: str, value: float) -> bool:
    return abs(float(aggregate(table, name, table.ones())[0]) - value) < 1e-6


def _guessed(name: str, table: Table, value: float, whole: bool) -> Aggregate | None:
    """Return the aggregate of a metric that the record does not name.

    Records did not name aggregates at first, and a task may bring one of its own. Such a metric gets the one of five that gives
    the recorded number; where several do, the one that fits the structure of the documents. Of a part of the documents, whose
    number is not recorded, name and structure decide.
    """
    named = {"f1_macro": f1_macro, "mcc": matthews}
    stratified = int(table.strata.max()) > 0
    if not whole:
        usual = (named | {"grade_norm": cluster_sum}).get(name, macro_mean if stratified else mean)
        value = float(usual(table, name, table.ones())[0])
    labelled = bool(len(table.labels)) and bool((table.gold >= 0).all()) and bool((table.pred >= 0).all())
    clustered = units(table) < len(table)
    order: list[Aggregate] = [mean, cluster_sum, macro_mean]
    if stratified and not clustered:
        order = [macro_mean, mean]
    if name in named and labelled:
        order.insert(0, named[name])
    return next((a for a in order if name in table.columns and _gives(a, table, name, value)), None)


# -- which weights ------------------------------------------------------------------------------------------------------

_weights: dict[str, list[NDArray[np.uint8]]] = {}


def _draw_weights(key: str, table: Table, room: int = 100_000_000) -> Iterable[Floats]:
    """Return the bootstrap weights that belong to a key, as blocks; kept while they fit into memory, as many runs share them."""
    if key not in _weights:
        chunk = int(min(RESAMPLES, max(20, 250_000 // max(len(table), 1))))
        blocks = draw_counts(table.clusters, table.strata, RESAMPLES, draws.seed_of_documents(key), chunk=chunk)
        kept = [np.minimum(block, 255).astype(np.uint8) for block in blocks]
        if sum(b.nbytes for v in _weights.values() for b in v) + RESAMPLES * len(table) > room:
            _weights.clear()
        _weights[key] = kept
    factor = scale(table.clusters, table.strata)
    return (block * factor for block in _weights[key])


def paired_draws(table: Table, aggregates: Mapping[str, Aggregate], key: str) -> NDArray[np.float32] | None:
    """Return (B,) bootstrap values of the mean of the metrics; None if there is but one independent unit.

    Entry b of all results with this key (`documents_key`) weighs the documents alike.
    """
    if units(table) < 2:
        return None
    found = draws.draw(table, aggregates, _draw_weights(key, table))
    values: NDArray[np.float32] = draws.mean_of(found, aggregates).astype(np.float32)
    return values


def aggregate_errors(samples: Sequence[Sample], result: TaskResult, seed: int) -> dict[str, float]:
    """Return the standard error of each metric of a task and of its `score`: the deviation of their bootstrap values.

    A metric whose aggregate the record does not name has none.

    Args:
        samples: all documents of the task.
        result: what the record states of the task.
        seed: of the resampling.
    """
    table = table_of(samples)
    known = {name: AGGREGATES[kind] for name, kind in result.aggregates.items() if kind in AGGREGATES}
    if units(table) < 2 or not known:
        return {}
    found = draws.draw(table, known, resample(table.clusters, table.strata, RESAMPLES, seed))
    if set(result.primary) <= set(found):
        found["score"] = draws.mean_of(found, result.primary)
    return {name: float(np.std(values, ddof=1)) for name, values in found.items()}
