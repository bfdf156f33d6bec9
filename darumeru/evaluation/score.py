"""Stored answers → samples and scores of tasks, groups and suite."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darumeru.evaluation.plan import Plan
from darumeru.inference.thinking import Style
from darumeru.inference.thoughts import thought_id
from darumeru.record.journal import Journal
from darumeru.record.sample import Asked, Repeat, Sample, table_of, tables_of_repeats
from darumeru.record.scores import Mean, Scores, TaskResult
from darumeru.requests import Answer, Request, by_repeat
from darumeru.task.score import over_repeats
from darumeru.task.suite import Suite, summarise

if TYPE_CHECKING:
    from darumeru.scoring.aggregate import Aggregate
    from darumeru.task import DarumeruTask

log = logging.getLogger(__name__)


def score(plan: Plan, journal: Journal, faults: Mapping[str, str]) -> tuple[dict[str, list[Sample]], Scores]:
    """Return samples and scores of all tasks from the stored answers; a task that cannot be scored is named, not left out."""
    grouped: dict[tuple[str, int], list[Request]] = {}
    for request in plan.requests:
        task, index, _ = request.id.rsplit("/", 2)
        grouped.setdefault((task, int(index)), []).append(request)
    failed = dict(plan.missing)
    for id_, fault in faults.items():
        failed.setdefault(id_.rsplit("/", 2)[0], fault)
    samples: dict[str, list[Sample]] = {}
    for name, task in plan.tasks.items():
        if name in failed:
            continue
        samples[name] = [
            _sample(
                task,
                index,
                grouped[name, index],
                [journal.answers[r.id] for r in grouped[name, index]],
                plan.opened.style,
            )
            for index in plan.documents[name]
        ]
    samples, scores = score_samples(plan.suite, plan.tasks, samples, plan.settings.seed, failed)
    for name, seconds in _seconds(plan.requests, journal).items():
        if name in scores.tasks:
            scores.tasks[name].seconds = round(seconds, 3)
    return samples, scores


def _sample(
    task: DarumeruTask, index: int, requests: Sequence[Request], answers: Sequence[Answer], style: Style
) -> Sample:
    """Return all that is known of a document before it is scored."""
    doc = task.docs()[index]
    asked = [Asked.of(r, a) for r, a in zip(requests, answers, strict=True)]
    for request, answer in zip(asked, answers, strict=True):
        if style.again(answer):
            request.answer.rethought = True
    return Sample(id=index, doc=doc, gold=task.gold(doc), requests=asked)


def score_samples(
    suite: Suite,
    tasks: Mapping[str, DarumeruTask],
    samples: Mapping[str, Sequence[Sample]],
    seed: int,
    failed: Mapping[str, str] = {},
) -> tuple[dict[str, list[Sample]], Scores]:
    """Score samples and aggregate them to tasks, groups and suite.

    Args:
        suite: the tasks and groups of the means.
        tasks: by name.
        samples: by task, scored or not.
        seed: of the run.
        failed: why further tasks cannot be scored.

    Returns:
        The samples with their scores (those of a task whose scoring fails as they were), and the scores of all tasks, groups
        and the suite.
    """
    failed = dict(failed)
    scored: dict[str, list[Sample]] = {}
    rules: dict[str, Rules] = {}
    more: dict[str, dict[str, Any]] = {}
    for name, rows in samples.items():
        task = tasks[name]
        try:
            scored[name] = [score_document(task, row, by_repeat(row.requests)) for row in rows]
        except Exception as error:  # a fault in one task must not lose the scores of the others
            log.debug("task %s", name, exc_info=True)
            failed[name] = f"{type(error).__name__}: {error}"
            scored[name] = list(rows)
            continue
        rules[name] = Rules.of(task, seed)
        more[name] = observations(scored[name]) | _of_thoughts(task, scored[name], rules[name].seed)
    return scored, aggregate(suite, rules, scored, failed, more)


@dataclass(frozen=True)
class Rules:
    """How the values of a task's documents make its score."""

    metrics: Mapping[str, Aggregate]
    primary: tuple[str, ...]
    """The metrics whose mean is the score."""
    seed: int
    """Of the resampling."""
    scoring: int | None = None
    """Version of what the metrics compute."""
    higher_is_better: bool = True

    @classmethod
    def of(cls, task: DarumeruTask, seed: int) -> Rules:
        """Return those of a task in a run with this seed."""
        from darumeru.scoring.draws import seed_of_run

        drawn = seed_of_run(seed, task.dataset, task.config.test_split)
        return cls(task.metrics, task.primary, drawn, task.SCORING, task.higher_is_better()["score"])


def aggregate(
    suite: Suite,
    rules: Mapping[str, Rules],
    scored: Mapping[str, Sequence[Sample]],
    failed: Mapping[str, str],
    more: Mapping[str, Mapping[str, Any]],
) -> Scores:
    """Return the scores of tasks, groups and suite.

    Args:
        suite: see `score_samples`.
        rules: by task, of those that have scores.
        scored: their scored samples, by task.
        failed: see `score_samples`.
        more: further fields of `TaskResult`, by task.
    """
    from darumeru.scoring.estimate import Estimate, estimate_mean
    from darumeru.scoring.summary import mean_of_metrics, score_task, spread, stated

    results: dict[str, TaskResult] = {}
    estimates: dict[str, Estimate] = {}
    repeats: dict[str, list[float]] = {}
    for name, how in rules.items():
        found, estimates[name] = score_task(table_of(scored[name]), how.metrics, how.primary, how.seed)
        if repeated := [mean_of_metrics(table, how.metrics, how.primary) for table in tables_of_repeats(scored[name])]:
            found["repeats"] = spread(repeated)
            repeats[name] = repeated
        results[name] = TaskResult(
            **found, scoring=how.scoring, higher_is_better=how.higher_is_better, **more.get(name, {})
        )

    values = {name: found.value for name, found in estimates.items()}
    summary = summarise(suite, values)
    summaries = [
        summarise(suite, values | {name: of[number] for name, of in repeats.items()})
        for number in range(max(map(len, repeats.values()), default=0))
    ]

    def mean(name: str, title: str, members: Sequence[str]) -> Mean:
        if summary[name] is None:
            return Mean(value=None, low=None, high=None, title=title)
        found = stated(estimate_mean([estimates[task] for task in members]))
        if repeats.keys() & set(members):
            found["repeats"] = spread([value for of in summaries if (value := of[name]) is not None])
        return Mean(**found | {"value": summary[name]}, title=title)

    return Scores(
        suite=mean(suite.name, suite.summary, suite.counted),
        groups={g.name: mean(g.name, g.title, g.tasks) for g in suite.groups},
        tasks={name: results[name] for name in suite.tasks if name in results},
        failed=dict(failed),
    )


def score_document(task: DarumeruTask, row: Sample, repeats_of: Sequence[Sequence[Asked]]) -> Sample:
    """Return a document with what its answers are worth, the repeats that are given."""
    score = over_repeats(
        [
            task.rated(row.doc, [r.answer.answer() for r in asked], [r.reference_tokens for r in asked])
            for asked in repeats_of
        ]
    )
    repeats = [Repeat(score=s.metrics, pred=s.pred, extra=s.extra) for s in score.repeats]
    return row.model_copy(
        update={
            "pred": score.pred,
            "score": score.metrics,
            **({"repeats": repeats} if repeats else {}),
            "ties": score.ties,
            "repeated_golds": score.repeated_golds,
            "golds_outside": score.golds_outside,
            "cluster": score.cluster,
            "stratum": score.stratum,
            "extra": score.extra,
        }
    )


def observations(rows: Sequence[Sample]) -> dict[str, Any]:
    """Return what a reader should know beside the score: ties, truncated prompts and answers, tokens."""
    requests = [r for row in rows for r in row.requests]
    generated = [r.answer for r in requests if r.answer.generated]
    fewshot = [r.num_fewshot for r in requests]
    return {
        "ties": sum(row.ties for row in rows),
        "repeated_golds": sum(row.repeated_golds for row in rows),
        "golds_outside": sum(row.golds_outside for row in rows),
        "truncated_prompts": sum(r.truncated > 0 for r in requests),
        "fewshot_used": sum(fewshot) / len(fewshot),
        "empty_answers": sum(not a.text.strip() for a in generated),
        "cut_answers": sum(a.finish == "length" and not a.unfinished for a in generated),
        "requests": len(requests),
        "prompt_tokens": sum(r.prompt_tokens or 0 for r in requests),
        "generated_tokens": sum(len(a.tokens) for a in generated),
        "approximate_answers": sum(r.answer.approximate for r in requests),
    }


def _of_thoughts(task: DarumeruTask, rows: Sequence[Sample], draw_seed: int) -> dict[str, Any]:
    """Return what thinking cost and what the finished answers are worth; nothing where no model thought."""
    from darumeru.scoring.aggregate import cluster_sum
    from darumeru.scoring.summary import score_task

    answers = [r.answer for row in rows for r in row.requests]
    if not any(a.thought_tokens or a.unfinished or a.rethought for a in answers):
        return {}
    finished = [found for row in rows if (found := _finished(task, row)) is not None]
    if any(task.metrics[name] is cluster_sum for name in task.primary):
        # Of a sum over a cluster no part is worth anything without the others.
        whole = {row.id for row in finished}
        broken = {row.cluster for row in rows if row.id not in whole}
        finished = [row for row in finished if row.cluster not in broken]
    found = score_task(table_of(finished), task.metrics, task.primary, draw_seed)[0]["score"] if finished else None
    return {
        "thought_tokens": sum(len(a.thought_tokens) for a in answers),
        "unfinished_thoughts": sum(a.unfinished for a in answers),
        "rethought_answers": sum(a.rethought for a in answers),
        "finished_documents": len(finished),
        "finished_score": found,
    }


def _finished(task: DarumeruTask, row: Sample) -> Sample | None:
    """Return a scored document with what its finished answers are worth; None where no thought ended."""
    repeats = by_repeat(row.requests)
    finished = [asked for asked in repeats if not any(r.answer.unfinished for r in asked)]
    if len(finished) == len(repeats):
        return row
    return score_document(task, row, finished).model_copy(update={"repeats": []}) if finished else None


def _seconds(requests: Iterable[Request], journal: Journal) -> dict[str, float]:
    """The engine's time by task; a batch's time (or, where the engine interleaves, all time) is shared out by tokens."""
    weight: dict[str, int] = {}
    for r in requests:
        for id_ in (r.id, thought_id(r)):
            if id_ in journal.answers:
                weight[id_] = r.prompt_tokens + len(journal.answers[id_].tokens)
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
