"""`inspect`: logs that `inspect view` opens, a file a task, as Inspect runs tasks; written by its own Python interface.

A repeat of a drawn answer is an epoch. Each metric is a scorer, its value beside the bounds of its interval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darumeru.exports.format import Export, Format
from darumeru.extras import need
from darumeru.files import dumps, fingerprint, slug
from darumeru.record.draws import first_split
from darumeru.record.sample import Sample
from darumeru.record.scores import Score, TaskResult
from darumeru.requests import by_repeat
from darumeru.task import DarumeruTask


def write(export: Export, folder: Path) -> None:
    """Write the logs.

    Raises:
        UserError: Inspect is not installed, or the run is not finished.
    """
    need("inspect_ai", extra="inspect")
    from inspect_ai.log import EvalLog, EvalStats, write_eval_log

    export.check()
    started = export.header.started or export.scores.finished or "1970-01-01T00:00:00+00:00"
    for name, result in export.scores.tasks.items():
        samples = list(export.run.samples(name))
        log = EvalLog(
            status="success",
            eval=_spec(export, name, samples, started),
            results=_results(result),
            stats=EvalStats(started_at=started, completed_at=export.scores.finished or started),
            samples=[s for sample in samples for s in _samples(sample, export, export.tasks[name])],
        )
        # Inspect's viewer tells the time, the task and its id by the file's name: none of them has an underscore.
        parts = (started.replace(":", "-"), slug(name).replace("_", "-"), log.eval.task_id)
        write_eval_log(log, str(folder / ("_".join(parts) + ".eval")))


def _spec(export: Export, name: str, samples: list[Sample], started: str) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalSpec

    header = export.header
    id_ = fingerprint([header.id, name])[:22]
    source = str(first_split(header.tasks[name].data)[1].get("source", "unknown"))
    facts = {
        "darumeru run": header.id, "suite": header.suite.name, "mode": header.mode, "num_fewshot": header.num_fewshot,
        "drawn": header.how_drawn, "thinking": header.how_thought,
        "approximate answers": export.scores.tasks[name].approximate_answers,
    }  # fmt: skip
    return EvalSpec(
        eval_id=id_,
        run_id=str(header.id)[:22],
        created=started,
        task=name,
        task_id=id_,
        task_version=export.version(name),
        dataset=EvalDataset(
            name=export.tasks[name].dataset,
            location=source,
            samples=len(samples),
            sample_ids=[str(s.id) for s in samples],
        ),
        model=f"{header.engine.name}/{export.model}",
        config=EvalConfig(limit=header.limit, epochs=header.repeats),
        packages={key: str(value) for key, value in (header.where.get("packages") or {}).items()},
        metadata=facts,
    )


def _results(result: TaskResult) -> Any:
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    def score(name: str, found: Score) -> Any:
        values = {"value": found.value, "low_95": found.low, "high_95": found.high}
        metrics = {key: EvalMetric(name=key, value=value) for key, value in values.items() if value is not None}
        return EvalScore(name=name, scorer=name, scored_samples=result.documents, metrics=metrics)

    # The viewer's lists show the first: what the task is judged by.
    named = {name: result.metrics[name] for name in result.primary} | dict(result.metrics)
    if len(result.primary) > 1:
        named = {"score": result.score} | named
    return EvalResults(
        total_samples=result.documents,
        completed_samples=result.documents,
        scores=[score(name, found) for name, found in named.items()],
    )


def _samples(sample: Sample, export: Export, task: DarumeruTask) -> list[Any]:
    """Return a document, once for each repeat."""
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score as InspectScore

    options = list(task.asked(sample.doc)[0].options)
    golds = sample.gold if isinstance(sample.gold, list) else [sample.gold]
    target = [gold if isinstance(gold, str) else dumps(gold) for gold in golds]
    epochs = []
    for number, asked in enumerate(by_repeat(sample.requests)):
        one = sample.of_repeat(number)
        answer = one.pred if one.pred is not None else asked[0].answer.text
        turns = [
            turn
            for request in asked
            for turn in (
                ChatMessageUser(content=request.prompt),
                ChatMessageAssistant(content=_said(request.answer.to_json())),
            )
        ]
        epochs.append(
            EvalSample(
                id=str(sample.id),
                epoch=number + 1,
                input=asked[0].prompt,
                choices=options or None,
                target=target[0] if len(target) == 1 else target,
                messages=turns,
                output=ModelOutput.from_content(export.model, answer or ""),
                scores={name: InspectScore(value=float(value), answer=answer) for name, value in one.score.items()},
                metadata={"document": sample.doc, "cluster": sample.cluster, "stratum": sample.stratum, **one.extra},
            )
        )
    return epochs


def _said(answer: dict[str, Any]) -> str:
    """Return an answer as a turn shows it: the text, after what was thought; or the log-probabilities of the labels."""
    if "logprobs" in answer:
        return "log-probabilities: " + "  ".join(f"{value:.4f}" for value in answer["logprobs"])
    thought = f"<think>{answer['thought']}</think>\n" if answer.get("thought") else ""
    return thought + str(answer.get("text", ""))


inspect = Format("Logs for `inspect view` (extra `inspect`).", write)
