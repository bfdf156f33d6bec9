"""Stored answers → samples and scores of tasks, groups and suite."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from darumeru.evaluation.plan import Plan
from darumeru.record.run import Journal, Sample
from darumeru.requests import Answer, Request
from darumeru.task.suite import Suite, summarise, summarise_draws

if TYPE_CHECKING:
    from darumeru.task import DarumeruTask, Score

log = logging.getLogger(__name__)


def score(plan: Plan, journal: Journal, faults: Mapping[str, str]) -> tuple[dict[str, list[Sample]], dict[str, Any]]:
    """Samples and scores of all tasks from the stored answers; a task that cannot be scored is named, not left out."""
    grouped: dict[tuple[str, int], list[Request]] = {}
    for request in plan.requests:
        task, index, _ = request.id.rsplit("/", 2)
        grouped.setdefault((task, int(index)), []).append(request)
    failed: dict[str, str] = {}
    for id_, fault in faults.items():
        failed.setdefault(id_.rsplit("/", 2)[0], fault)
    samples: dict[str, list[Sample]] = {}
    for name, task in plan.tasks.items():
        if name in failed:
            continue
        samples[name] = [
            _sample(task, index, grouped[name, index], [journal.answers[r.id] for r in grouped[name, index]])
            for index in plan.documents[name]
        ]
    scores = score_samples(plan.suite, plan.tasks, samples, plan.settings.seed, failed)
    for name, seconds in _seconds(plan.requests, journal).items():
        if name in scores["tasks"]:
            scores["tasks"][name]["seconds"] = round(seconds, 3)
    return samples, scores


def _sample(task: DarumeruTask, index: int, requests: Sequence[Request], answers: Sequence[Answer]) -> Sample:
    """All that is known of a document before it is scored."""
    return {
        "id": index,
        "doc": task.docs()[index],
        "gold": task.gold(task.docs()[index]),
        "requests": [
            {
                "prompt": r.text,
                "prompt_tokens": len(r.prompt),
                "num_fewshot": r.num_fewshot,
                "truncated": r.truncated,
                "reference_tokens": r.reference_tokens,
                "answer": {k: v for k, v in a.to_json().items() if k != "id"},
            }
            for r, a in zip(requests, answers, strict=True)
        ],
    }


def score_samples(
    suite: Suite,
    tasks: Mapping[str, DarumeruTask],
    samples: dict[str, list[Sample]],
    seed: int,
    failed: Mapping[str, str] = {},
) -> dict[str, Any]:
    """Score samples in place (`score` is set in each) and aggregate them to tasks, groups and suite."""
    from darumeru.scoring.bootstrap import seed_of
    from darumeru.scoring.summary import mean_with_interval, score_task
    from darumeru.task.base import table_of

    failed = dict(failed)
    results: dict[str, Any] = {}
    draws: dict[str, Any] = {}
    for name, rows in samples.items():
        task = tasks[name]
        try:
            scored = [_score_one(task, row) for row in rows]
        except Exception as error:  # a fault in one task must not lose the scores of the others
            log.debug("task %s", name, exc_info=True)
            failed[name] = f"{type(error).__name__}: {error}"
            continue
        # Tasks on the same documents are resampled alike, so that their mean's interval knows that they are dependent.
        draw_seed = seed_of(seed, task.dataset, task.config.test_split)
        results[name], drawn = score_task(table_of(scored), task.metrics, task.primary, draw_seed)
        results[name] |= {"higher_is_better": task.higher_is_better()["score"], **_observations(rows, scored)}
        if drawn is not None:
            draws[name] = drawn
    values = {name: result["score"]["value"] for name, result in results.items()}
    summary = summarise(suite, values)
    summary_draws = summarise_draws(suite, draws)

    def mean(name: str, title: str, members: Sequence[str]) -> dict[str, Any]:
        scores = [results[task]["score"] for task in members if task in results]
        return {**mean_with_interval(summary[name], summary_draws.get(name), scores), "title": title}

    return {
        "suite": mean(suite.name, suite.summary, suite.counted),
        "groups": {g.name: mean(g.name, g.title, g.tasks) for g in suite.groups},
        "tasks": {name: results[name] for name in suite.tasks if name in results},
        "failed": failed,
    }


def _score_one(task: DarumeruTask, row: Sample) -> Score:
    answers = [Answer.from_json({"id": "", **r["answer"]}) for r in row["requests"]]
    score = task.rated(row["doc"], answers, [r["reference_tokens"] for r in row["requests"]])
    row["pred"] = score.pred
    row["score"] = score.metrics
    row["ties"] = score.ties
    row["cluster"] = score.cluster
    row["stratum"] = score.stratum
    row["extra"] = score.extra
    return score


def _observations(rows: Sequence[Sample], scores: Sequence[Score]) -> dict[str, Any]:
    """What a reader should know beside the score: ties, cut prompts and answers, tokens."""
    requests = [r for row in rows for r in row["requests"]]
    generated = [r["answer"] for r in requests if "finish" in r["answer"]]
    fewshot = [r["num_fewshot"] for r in requests]
    return {
        "ties": sum(s.ties for s in scores),
        "truncated_prompts": sum(r["truncated"] > 0 for r in requests),
        "fewshot_used": sum(fewshot) / len(fewshot),
        "empty_answers": sum(not a.get("text", "").strip() for a in generated),
        "cut_answers": sum(a["finish"] == "length" for a in generated),
        "requests": len(requests),
        "prompt_tokens": sum(r["prompt_tokens"] for r in requests),
        "generated_tokens": sum(len(a.get("tokens", ())) for a in generated),
        "approximate_answers": sum(r["answer"].get("approximate", False) for r in requests),
    }


def _seconds(requests: Iterable[Request], journal: Journal) -> dict[str, float]:
    """The engine's time by task; a batch's time (or, where the engine interleaves, all time) is shared out by tokens."""
    weight = {r.id: len(r.prompt) + len(journal.answers[r.id].tokens) for r in requests if r.id in journal.answers}
    batches = journal.seconds
    if journal.interleaved:
        batches = [(sum(s for s, _ in batches), [i for _, ids in batches for i in ids])]
    found: dict[str, float] = {}
    for seconds, ids in batches:
        total = sum(weight.get(i, 0) for i in ids)
        for i in ids:
            task = i.rsplit("/", 2)[0]
            found[task] = found.get(task, 0.0) + (seconds * weight.get(i, 0) / total if total else 0.0)
    return found
