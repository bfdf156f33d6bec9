"""`lm-eval`: the files that `lm_eval --output_path --log_samples` writes.

    MODEL/results_DATE.json           scores, settings of tasks and model
    MODEL/samples_TASK_DATE.jsonl     a document a line: prompts, answers, values of the metrics

A choice among labels is what it is in lm-eval, a request for each label; so is a ranking. Of an answer that was drawn several
times `resps` holds all. Two things are not known here as lm-eval knows them: `is_greedy` of a label is always False, and a
generated text's own tokens have no place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError
from darumeru.exports.format import Export, Format
from darumeru.files import dumps, write_json, write_jsonl
from darumeru.record.draws import aggregate_errors
from darumeru.record.header import Header
from darumeru.record.sample import Asked, Sample
from darumeru.record.scores import TaskResult
from darumeru.requests import Query, by_query
from darumeru.task import DarumeruTask

_OUTPUT_TYPES = {
    "choose": "multiple_choice", "rank": "multiple_choice", "generate": "generate_until", "likelihood": "loglikelihood",
}  # fmt: skip
_UNLIKELY = "-inf"
"""Log-probability of the labels where a thought did not end, so that no label was chosen."""


def write(export: Export, folder: Path) -> None:
    """Write results and samples."""
    from lm_eval.utils import hash_string, sanitize_model_name

    export.check()
    header, scores = export.header, export.scores
    finished = datetime.fromisoformat(scores.finished) if scores.finished else datetime.fromtimestamp(0)
    date = finished.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    place = folder / sanitize_model_name(export.model)
    hashes, errors, kinds = {}, {}, {}
    for name, result in scores.tasks.items():
        task, rows = export.tasks[name], list(export.run.samples(name))
        errors[name] = aggregate_errors(rows, result, header.seed)
        kinds[name] = _OUTPUT_TYPES[task.asked(rows[0].doc)[0].kind]
        keys: list[str] = []
        write_jsonl(place / f"samples_{name}_{date}.jsonl", _lines(rows, task, result, header, keys))
        hashes[name] = hash_string("".join(keys))
    results = _results(export, errors, kinds) | {
        "date": finished.timestamp(),
        "task_hashes": hashes,
        "model_source": header.engine.name,
        "model_name": export.model,
        "model_name_sanitized": sanitize_model_name(export.model),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": header.mode == "instruct",
        "chat_template": header.model.chat_template,
        "chat_template_sha": header.model.chat_template_sha256,
        "total_evaluation_time_seconds": str(scores.time.wall_seconds if scores.time else 0.0),
    }
    write_json(place / f"results_{date}.json", results)


def _results(export: Export, errors: dict[str, dict[str, float]], kinds: dict[str, str]) -> dict[str, Any]:
    """Return what `lm_eval.evaluate` returns, without samples."""
    header, scores = export.header, export.scores
    tasks = sorted(scores.tasks)
    groups = {g.name: scores.groups[g.name] for g in header.suite.groups if g.name in scores.groups}
    means = {
        name: {"alias": mean.title or name, "name": name, "score,none": mean.value, "score_stderr,none": "N/A"}
        for name, mean in (groups | {header.suite.name: scores.suite}).items()
        if mean.value is not None
    }
    members = {g.name: list(g.tasks) for g in header.suite.groups}
    shots = {n: 0 if export.tasks[n].config.num_fewshot == 0 else header.num_fewshot for n in tasks}
    return {
        "results": {n: _metrics(n, scores.tasks[n], errors[n]) for n in scores.tasks} | means,
        "groups": means,
        "group_subtasks": {header.suite.name: list(members)} | members,
        "configs": {n: _config(export, n, kinds[n]) for n in tasks},
        "versions": {n: _version(export, n) for n in tasks},
        "n-shot": shots,
        "higher_is_better": {n: dict(export.tasks[n].higher_is_better()) for n in tasks},
        "n-samples": {
            n: {"original": header.tasks[n].of, "effective": scores.tasks[n].documents} for n in scores.tasks
        },
        "config": _model_config(export),
        "git_hash": None,
        "lm_eval_version": version("lm-eval"),
        "transformers_version": (header.where.get("packages") or {}).get("transformers"),
        "max_length": header.model.context_len,
    }


def _version(export: Export, name: str) -> float | str:
    """Return the version of a task that was asked, a number where it is one."""
    try:
        return float(export.version(name))
    except ValueError:
        return export.version(name)


def _metrics(name: str, result: TaskResult, errors: dict[str, float]) -> dict[str, Any]:
    """Return a task's values as `metric,filter`; `score` is the mean of its primary metrics."""
    values = {metric: found.value for metric, found in result.metrics.items()} | {"score": result.score.value}
    found: dict[str, Any] = {"alias": name, "name": name, "sample_len": result.documents}
    for metric, value in values.items():
        found |= {f"{metric},none": value, f"{metric}_stderr,none": errors.get(metric, "N/A")}
    return found


def _config(export: Export, name: str, kind: str) -> dict[str, Any]:
    task, result = export.tasks[name], export.scores.tasks[name]
    config = task.config
    better = task.higher_is_better()
    return {
        "task": name,
        "dataset_path": config.dataset_path,
        "dataset_name": config.dataset_name,
        "test_split": config.test_split,
        "fewshot_split": config.fewshot_split,
        "output_type": kind,
        "generation_kwargs": config.generation_kwargs if kind == "generate_until" else None,
        "num_fewshot": export.header.num_fewshot,
        "metric_list": [
            {"metric": metric, "aggregation": result.aggregates.get(metric), "higher_is_better": better[metric]}
            for metric in result.metrics
        ],
        "repeats": export.header.repeats,
        "metadata": {"version": _version(export, name), "scoring": result.scoring},
    }


def _model_config(export: Export) -> dict[str, Any]:
    header = export.header
    model, sampling = header.model, export.header.generation
    taken = export.scores.engine
    facts = {"suite": header.suite.name, "mode": header.mode, "likelihood": header.likelihood, "run": header.id}
    if export.scores.approximate:
        facts["approximate_answers"] = export.scores.approximate
    if header.thinking:
        facts["thinking"] = header.thinking.to_json()
    return {
        "model": header.engine.name,
        "model_args": {"pretrained": export.model, **header.engine.model_args},
        "model_num_parameters": model.parameters,
        "model_dtype": str(taken.get("dtype") or header.engine.dtype),
        "model_revision": model.revision,
        "model_sha": model.weights_sha256,
        "batch_size": None,
        "batch_sizes": [],
        "device": str(taken.get("device") or header.engine.device),
        "use_cache": None,
        "limit": header.limit,
        "bootstrap_iters": max((r.resamples for r in export.scores.tasks.values()), default=0),
        "gen_kwargs": sampling,
        "random_seed": header.seed,
        "numpy_seed": header.seed,
        "torch_seed": header.seed,
        "fewshot_seed": header.seed,
        "darumeru": facts | {"version": version("darumeru")},
    }


def _lines(
    rows: list[Sample], task: DarumeruTask, result: TaskResult, header: Header, keys: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield a task's documents; their hashes are added to `keys`."""
    for sample in rows:
        line = _line(sample, task, header) | sample.score | {"score": sample.mark(result.primary)}
        line["metrics"] = list(dict.fromkeys([*sample.score, "score"]))
        keys.append(line["doc_hash"] + line["prompt_hash"] + line["target_hash"])
        yield line


def _line(sample: Sample, task: DarumeruTask, header: Header) -> dict[str, Any]:
    """Return a document as lm-eval logs it."""
    from lm_eval.utils import hash_string

    arguments: list[dict[str, Any]] = []
    answers: list[list[Any]] = []
    queries, asked_then = task.asked(sample.doc), by_query(sample.requests)
    if len(queries) != len(asked_then):
        raise DarumeruError(
            f"Task '{task.name}' was asked otherwise by the version that made this record: use that version, or run it again."
        )
    for query, asked in zip(queries, asked_then, strict=True):
        for argument, repeats in _instances(query, asked, header):
            arguments.append({"arg_0": asked[0].prompt, "arg_1": argument})
            answers.append(repeats)
    target = sample.gold if isinstance(sample.gold, str) else dumps(sample.gold)
    return {
        "doc_id": sample.id,
        "doc": sample.doc,
        "target": target,
        "arguments": {f"gen_args_{i}": argument for i, argument in enumerate(arguments)},
        "resps": answers,
        "filtered_resps": [repeats[0] for repeats in answers],
        "filter": "none",
        "doc_hash": hash_string(json.dumps(sample.doc, indent=2, ensure_ascii=False)),
        "prompt_hash": hash_string(sample.requests[0].prompt),
        "target_hash": hash_string(target),
    }


def _instances(query: Query, asked: list[Asked], header: Header) -> Iterator[tuple[Any, list[Any]]]:
    """Yield a query's requests in lm-eval: the second argument, and the responses of each repeat."""
    answers = [request.answer for request in asked]
    if query.kind == "generate":
        until = {"until": list(query.until), "max_gen_toks": query.max_tokens}
        drawn = {k: v for k, v in header.generation.items() if k != "repeats"}
        yield until | drawn, [answer.text for answer in answers]
        return
    for number, option in enumerate(query.options):
        greedy = [str(bool(a.greedy and a.greedy[number])) for a in answers]
        numbers = [_UNLIKELY if a.unfinished else str(a.logprobs[number]) for a in answers]
        yield option, [[n, g] for n, g in zip(numbers, greedy, strict=True)]


lm_eval = Format("Results and samples as `lm_eval --log_samples` writes them.", write)
