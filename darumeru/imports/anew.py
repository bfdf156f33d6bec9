"""Foreign samples of our tasks, scored anew from their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from darumeru.evaluation.score import score_document
from darumeru.imports.foreign import ForeignTask
from darumeru.record.sample import Asked, GivenAnswer, Sample
from darumeru.requests import Query, by_query, by_repeat

if TYPE_CHECKING:
    from darumeru.task import DarumeruTask

NEEDS_TOKENS = "its score counts the model's own tokens, which the file does not hold"


def is_of(task: DarumeruTask, foreign: ForeignTask) -> bool:
    """Return whether all documents are rows of a task and have answers to what it asks; else only its name is the same."""
    for sample in foreign.samples:
        if task.check(sample.doc) is not None:
            return False
        queries = task.asked(sample.doc)
        fits = (
            _answers(sample, queries) is not None
            if foreign.by_label
            else len(by_query(sample.requests)) == len(queries)
        )
        if not fits:
            return False
    return True


def score_anew(task: DarumeruTask, foreign: ForeignTask) -> tuple[list[Sample], bool] | None:
    """Return the samples scored by a task, and whether the values are the file's.

    Where the score counts tokens of the model, the values are those that an export of ours states; None if there are none.
    """
    scored = []
    for sample in foreign.samples:
        queries = task.asked(sample.doc)
        counts = any(query.reference is not None for query in queries)
        if foreign.by_label and counts:
            if foreign.scoring is None or not set(task.metrics) <= set(sample.score):
                return None
            scored.append(_stated(task, sample))
            continue
        repeats = _answers(sample, queries) if foreign.by_label else by_repeat(sample.requests)
        assert repeats is not None  # noqa: S101 - `is_of` said so
        requests = _flat(repeats) if foreign.by_label else sample.requests
        whole = sample.model_copy(update={"gold": task.gold(sample.doc), "requests": requests})
        scored.append(score_document(task, whole, repeats))
    return scored, foreign.by_label and counts


def _stated(task: DarumeruTask, sample: Sample) -> Sample:
    """Return a sample with its values, and with what belongs together as the task has it."""
    doc = sample.doc
    return sample.model_copy(
        update={
            "gold": task.gold(doc),
            "cluster": task.cluster(doc),
            "stratum": task.stratum(doc),
            "score": {name: value for name, value in sample.score.items() if name != "score" or name in task.metrics},
        }
    )


def _answers(sample: Sample, queries: Sequence[Query]) -> list[list[Asked]] | None:
    """Return for each repeat a request of each query; None if the answers are others than the queries ask for."""
    found = []
    for asked in by_repeat(sample.requests):
        parts = [(request, i) for request in asked for i in range(max(len(request.answer.logprobs), 1))]
        requests, at = [], 0
        for query in queries:
            # No label of a thought that did not end has a log-probability.
            unfinished = at < len(parts) and parts[at][0].answer.unfinished
            count = 1 if unfinished or query.kind == "generate" else len(query.options)
            mine = parts[at : at + count]
            labels = [bool(asked.answer.logprobs) for asked, _ in mine]
            if len(mine) < count or not (unfinished or labels == [query.kind != "generate"] * count):
                return None
            requests.append(_request(mine))
            at += count
        if at != len(parts):
            return None
        found.append(requests)
    return found


def _request(parts: Sequence[tuple[Asked, int]]) -> Asked:
    first = parts[0][0]
    answer = first.answer
    if answer.logprobs:
        answer = GivenAnswer(
            logprobs=[asked.answer.logprobs[i] for asked, i in parts],
            greedy=[bool(asked.answer.greedy and asked.answer.greedy[i]) for asked, i in parts],
        )
    return first.model_copy(update={"answer": answer})


def _flat(repeats: Sequence[Sequence[Asked]]) -> list[Asked]:
    """Return the inverse of `by_repeat`: a query that was asked once is one request."""
    requests = []
    for query in zip(*repeats, strict=True):
        requests += [asked for number, asked in enumerate(query) if asked.repeat == number]
    return requests
