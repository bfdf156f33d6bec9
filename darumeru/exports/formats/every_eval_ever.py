"""`every-eval-ever`: a run for the public collection of that name, by its schema 0.3.0.

    data/SUITE/DEVELOPER/MODEL/UUID.json              scores with intervals, how they were made, the model
    data/SUITE/DEVELOPER/MODEL/UUID_samples.jsonl     a document a line; the whole sample of our record in its `metadata`

The schema has no place for a mean of tasks but a result like any other, which comes first.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from darumeru.errors import UserError
from darumeru.exports.format import Export, Format
from darumeru.files import dumps, file_sha256, fingerprint, write_json, write_jsonl
from darumeru.record.draws import aggregate_errors, first_split
from darumeru.record.sample import Sample, table_of
from darumeru.record.scores import Score, TaskResult
from darumeru.scoring.aggregate import AGGREGATES, Table
from darumeru.scoring.estimate import UNLIMITED, limits_of
from darumeru.task import DarumeruTask

SCHEMA = "0.3.0"


def write(export: Export, folder: Path) -> None:
    """Write the scores and the samples."""
    export.check()
    place = folder / _place(export)
    file = uuid.UUID(hashlib.sha256(str(export.header.id).encode()).hexdigest()[:32], version=4)
    finished = str(int(datetime.fromisoformat(export.scores.finished).timestamp())) if export.scores.finished else "0"
    id_ = f"{export.header.suite.name}/{export.model}/{finished}"
    samples = place / f"{file}_samples.jsonl"
    rows, results = 0, [_mean(export)] if export.scores.suite.value is not None else []

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal rows
        for name, result in export.scores.tasks.items():
            read = list(export.run.samples(name))
            results.extend(_results(export, name, result, read))
            for sample in read:
                rows += 1
                yield _line(sample, export.tasks[name], result) | {
                    "schema_version": SCHEMA, "evaluation_id": id_, "model_id": export.model,
                    "evaluation_result_id": _id(name, result),
                }  # fmt: skip

    write_jsonl(samples, lines())
    log = {
        "schema_version": SCHEMA,
        "evaluation_id": id_,
        "evaluation_timestamp": finished,
        "retrieved_timestamp": finished,
        "source_metadata": {
            "source_name": "Darumeru",
            "source_type": "evaluation_run",
            "source_organization_name": "not stated",
            "evaluator_relationship": "other",
        },
        "eval_library": {
            "name": "darumeru",
            "version": version("darumeru"),
            "additional_details": {"run": str(export.header.id), "suite": export.header.suite.name},
        },
        "model_info": _model(export),
        "evaluation_results": results,
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": samples.relative_to(folder).as_posix(),
            "hash_algorithm": "sha256",
            "checksum": file_sha256(samples),
            "total_rows": rows,
        },
    }
    write_json(place / f"{file}.json", log)


def _place(export: Export) -> PurePosixPath:
    """Return the folder of the model's results; the collection goes by developer and model."""
    developer, _, model = export.model.partition("/")
    parts = (export.header.suite.name, developer, model)
    if not all(re.fullmatch(r"\w[\w.-]*\w|\w", part) and part != "data" for part in parts):
        raise UserError(
            f"Every Eval Ever sorts results by developer and model, which '{export.model}' does not say: "
            "give --name DEVELOPER/MODEL, as on the hub."
        )
    return PurePosixPath("data", *parts)


def _model(export: Export) -> dict[str, Any]:
    model, engine = export.header.model, export.header.engine
    facts = {
        "revision": model.revision,
        "num_parameters": model.parameters,
        "dtype": export.scores.engine.get("dtype") or engine.dtype,
        "weights_sha256": model.weights_sha256,
        "tokenizer_sha256": model.tokenizer_sha256,
        "deployment_type": "unknown" if engine.base_url else "self_deployed",
        "model_availability": "unknown",
    }
    return {
        "name": model.name,
        "id": export.model,
        "inference_engine": {"name": engine.name, "version": engine.version or "unknown"},
        "additional_details": {key: str(value) for key, value in facts.items() if value is not None},
    }


# -- scores -----------------------------------------------------------------------------------------------------------


def _id(name: str, result: TaskResult) -> str:
    """Return the id of a task's score, to which its samples belong."""
    return f"{name}/{result.primary[0] if len(result.primary) == 1 else 'score'}"


def _mean(export: Export) -> dict[str, Any]:
    suite, scores = export.header.suite, export.scores
    counted = [task for group in suite.groups if group.counts for task in group.tasks if task in scores.tasks]
    shares = all(export.tasks[task].is_share for task in counted)
    return {
        "evaluation_result_id": f"{suite.name}/mean",
        "evaluation_name": suite.name,
        "source_data": {"dataset_name": suite.name, "source_type": "other"},
        "metric_config": _metric(suite.summary, True, (0.0, 1.0) if shares else UNLIMITED),
        "score_details": _score(scores.suite, {"num_samples": sum(scores.tasks[t].documents for t in counted)}),
        "generation_config": _generation(export),
    }


def _results(export: Export, name: str, result: TaskResult, samples: list[Sample]) -> list[dict[str, Any]]:
    """Return a task's score and its metrics; where one metric is the score, they are the same."""
    table, errors = table_of(samples), aggregate_errors(samples, result, export.header.seed)
    limits = {metric: _limits(table, metric, result) for metric in result.metrics}
    better = export.tasks[name].higher_is_better()
    named = {metric: (score, limits[metric], better.get(metric, True)) for metric, score in result.metrics.items()}
    if len(result.primary) > 1:
        ends = [limits[metric] for metric in result.primary]
        mean = (math.fsum(low for low, _ in ends) / len(ends), math.fsum(high for _, high in ends) / len(ends))
        named = {"score": (result.score, mean, result.higher_is_better)} | named
    return [
        {
            "evaluation_result_id": f"{name}/{metric}",
            "evaluation_name": name,
            "source_data": _source(export, name),
            "metric_config": _metric(metric, higher, ends),
            "score_details": _score(
                score, {"num_samples": result.documents, "num_bootstrap_samples": result.resamples}, errors.get(metric)
            ),
            "generation_config": _generation(export),
        }
        for metric, (score, ends, higher) in named.items()
        if score.value is not None
    ]


def _limits(table: Table, metric: str, result: TaskResult) -> tuple[float, float]:
    aggregate = AGGREGATES.get(result.aggregates.get(metric) or "")
    return UNLIMITED if aggregate is None else limits_of(table, metric, aggregate)


def _metric(name: str, higher_is_better: bool, limits: tuple[float, float]) -> dict[str, Any]:
    def bound(value: float) -> float | str:
        return value if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"

    return {
        "metric_id": f"darumeru.{name}",
        "metric_name": name,
        "lower_is_better": not higher_is_better,
        "score_type": "continuous",
        "min_score": bound(limits[0]),
        "max_score": bound(limits[1]),
    }


def _score(score: Score, more: Mapping[str, Any], error: float | None = None) -> dict[str, Any]:
    uncertainty = dict(more)
    if score.low is not None and score.high is not None:
        uncertainty["confidence_interval"] = {
            "lower": score.low, "upper": score.high, "confidence_level": 0.95, "method": score.method or "bootstrap",
        }  # fmt: skip
    if error is not None:
        uncertainty["standard_error"] = {"value": error, "method": "bootstrap"}
    details = {"details": {"no interval": score.reason}} if score.reason else {}
    return {"score": score.value, "uncertainty": uncertainty, **details}


def _source(export: Export, name: str) -> dict[str, Any]:
    split, data = first_split(export.header.tasks[name].data)
    facts = {key: str(data[key]) for key in ("source", "revision", "sha256") if data.get(key)}
    facts["task_version"] = export.version(name)
    common = {"dataset_name": name, "additional_details": facts}
    if repository := data.get("repository"):
        return common | {
            "source_type": "hf_dataset", "hf_repo": repository, "hf_split": split,
            "samples_number": export.header.tasks[name].of,
        }  # fmt: skip
    return common | {"source_type": "other"}


def _generation(export: Export) -> dict[str, Any]:
    header = export.header
    drawn = header.generation
    arguments = {key: drawn[key] for key in ("temperature", "top_p", "top_k") if drawn.get(key) is not None}
    facts = {"mode": header.mode, "num_fewshot": header.num_fewshot, "drawn": header.how_drawn, "seed": header.seed}
    if export.scores.approximate:
        facts["approximate_answers"] = ", ".join(export.scores.approximate)
    if header.thinking:
        facts["thinking"] = dumps(header.thinking.to_json())
    return {
        "generation_args": arguments | {"reasoning": bool(header.thinking and header.thinking.mode == "on")},
        "additional_details": {key: str(value) for key, value in facts.items()},
    }


# -- samples ----------------------------------------------------------------------------------------------------------


def _line(sample: Sample, task: DarumeruTask, result: TaskResult) -> dict[str, Any]:
    """Return a document; what the schema cannot say of it stands in `metadata`, where the first prompt is not repeated."""
    first, *_ = sample.requests
    options = task.asked(sample.doc)[0].options
    golds = sample.gold if isinstance(sample.gold, list) else [sample.gold]
    reference = [gold if isinstance(gold, str) else dumps(gold) for gold in golds]
    answers = [r.answer for r in sample.requests]
    said = [sample.pred or ""] if sample.pred is not None else [a.text for a in answers]
    thoughts = [a.thought for a in answers if a.thought]
    given = sum(r.prompt_tokens or 0 for r in sample.requests)
    thought = sum(len(a.thought_tokens) for a in answers)
    made = thought + sum(len(a.tokens) for a in answers)
    mark = sample.mark(result.primary)
    whole = sample.to_json()
    del whole["requests"][0]["prompt"]
    return {
        "evaluation_name": task.name,
        "sample_id": str(sample.id),
        "sample_hash": fingerprint({"raw": first.prompt, "reference": reference}),
        "interaction_type": "single_turn",
        "input": {"raw": first.prompt, "reference": reference, **({"choices": list(options)} if options else {})},
        "output": {"raw": said, **({"reasoning_trace": thoughts} if thoughts else {})},
        "answer_attribution": [
            {
                "turn_idx": 0, "source": "output.raw", "extracted_value": said[0], "is_terminal": True,
                "extraction_method": "most probable label" if sample.pred is not None else "none",
            }
        ],
        "evaluation": {"score": mark, "is_correct": mark == 1.0},
        "token_usage": {
            "input_tokens": given, "output_tokens": made, "total_tokens": given + made,
            **({"reasoning_tokens": thought} if thought else {}),
        },
        "metadata": {"sample": whole},
    }  # fmt: skip


every_eval_ever = Format("Scores and samples for the collection Every Eval Ever.", write)
