"""`every-eval-ever`: `UUID.json` and, beside it, `UUID_samples.jsonl`, by the schema of the collection Every Eval Ever.

Tested with schema 0.3.0; of other versions what has the same keys is read. A result has the value of one metric of an evaluation,
a line the value of a document under one result.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from darumeru.errors import UserError
from darumeru.files import read_json, read_jsonl
from darumeru.imports.foreign import Foreign, ForeignTask, Reader, drawn_how, number
from darumeru.record.header import EngineFacts, ModelFacts, ThinkingFacts
from darumeru.record.sample import Asked, GivenAnswer, Sample

_NAME = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")


class _Kind(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class _Named(_Kind):
    name: str | None = None
    version: str | None = None
    additional_details: dict[str, str] | None = None


class _Model(_Kind):
    name: str
    id: str
    inference_engine: _Named | None = None
    additional_details: dict[str, str] | None = None


class _Metric(_Kind):
    metric_name: str | None = None
    metric_id: str | None = None
    lower_is_better: bool = False


class _Score(_Kind):
    score: Any


class _Generation(_Kind):
    generation_args: dict[str, Any] | None = None
    additional_details: dict[str, str] | None = None


class _Result(_Kind):
    evaluation_result_id: str | None = None
    evaluation_name: str
    source_data: dict[str, Any] = {}
    metric_config: _Metric
    score_details: _Score
    generation_config: _Generation | None = None


class _Log(_Kind):
    """What is read of a record."""

    schema_version: str
    evaluation_timestamp: str | None = None
    eval_library: _Named
    model_info: _Model
    evaluation_results: list[_Result]


class _Input(_Kind):
    raw: str
    formatted: str | None = None
    reference: list[str] | str | None = None
    choices: list[str] | None = None


class _Output(_Kind):
    raw: list[str] | str | None = None
    reasoning_trace: list[str] | str | None = None


class _Line(_Kind):
    """What is read of a line of samples."""

    evaluation_name: str
    evaluation_result_id: str | None = None
    sample_id: str
    input: _Input
    output: _Output | None = None
    messages: list[dict[str, Any]] | None = None
    evaluation: _Score
    metadata: dict[str, Any] | None = None


def find(path: Path) -> list[Path]:
    """Return the records of a folder and of those below, or the file itself."""
    if path.is_file():
        value = read_json(path) if path.suffix == ".json" else None
        return [path] if isinstance(value, dict) and {"schema_version", "evaluation_results"} <= set(value) else []
    files = (file for depth in range(5) for file in path.glob("*/" * depth + "*.json"))
    return sorted(file for file in files if _NAME.fullmatch(file.name))


def read(file: Path) -> Foreign:
    """Return the results of a record, with the samples beside it."""
    try:
        log = _Log.model_validate(read_json(file))
    except ValidationError as error:
        raise _fault(error, f"'{file}'", "record") from None
    samples = file.with_name(f"{file.stem}_samples.jsonl")
    if not samples.is_file():
        raise UserError(f"'{file}' has no samples beside it ({samples.name}): scores alone cannot be imported.")
    results: dict[str, list[_Result]] = {}
    for result in log.evaluation_results:
        results.setdefault(result.evaluation_name, []).append(result)
    rows = _rows(samples, log.evaluation_results)
    tasks = {name: _task(results.get(name, []), found, file) for name, found in rows.items()}
    failed = {name: f"there are no samples of it in '{samples.name}'" for name in results if name not in tasks}
    own = log.eval_library.name == "darumeru"
    suite = (log.eval_library.additional_details or {}).get("suite") if own else None
    if suite:
        failed.pop(suite, None)  # its mean is made of the tasks
    return _foreign(log, [file, samples], tasks, failed, suite)


def _foreign(
    log: _Log, files: list[Path], tasks: dict[str, ForeignTask], failed: dict[str, str], suite: str | None
) -> Foreign:
    facts = log.model_info.additional_details or {}
    engine = log.model_info.inference_engine or _Named()
    made = next((r.generation_config for r in log.evaluation_results if r.generation_config), _Generation())
    details, arguments = made.additional_details or {}, made.generation_args or {}
    drawn = drawn_how(arguments)
    if drawn.get("temperature"):
        drawn["do_sample"] = True
    count = facts.get("num_parameters", "")
    return Foreign(
        model=ModelFacts(
            name=log.model_info.name,
            revision=facts.get("revision"),
            weights_sha256=facts.get("weights_sha256"),
            parameters=int(count) if count.isdecimal() else None,
        ),
        engine=EngineFacts(name=engine.name or "unknown", version=engine.version, dtype=facts.get("dtype")),
        mode=details.get("mode", "unknown"),
        tasks=tasks,
        files=files,
        version=f"schema {log.schema_version}",
        failed=failed,
        seed=int(seed) if (seed := details.get("seed", "")).isdecimal() else 0,
        generation=drawn,
        thinking=ThinkingFacts(mode="on") if arguments.get("reasoning") is True else None,
        suite=suite,
        finished=_date(log.evaluation_timestamp),
    )


def _date(stamp: str | None) -> str | None:
    """Return a time as our records have it; the schema lets it be seconds since 1970, or ISO 8601."""
    try:
        if stamp and stamp.isdecimal():
            return datetime.fromtimestamp(int(stamp), UTC).isoformat(timespec="seconds")
        return datetime.fromisoformat(stamp).isoformat(timespec="seconds") if stamp else None
    except (ValueError, OverflowError, OSError):
        return None


def _task(results: Sequence[_Result], samples: list[Sample], file: Path) -> ForeignTask:
    metrics = {_metric(result): result for result in results}
    marks = set(samples[0].score)
    made = next((r.generation_config for r in results if r.generation_config), _Generation())
    shots = (made.additional_details or {}).get("num_fewshot", "")
    source = results[0].source_data if results else {}
    details = source.get("additional_details")
    return ForeignTask(
        samples=sorted(samples, key=lambda s: s.id),
        num_fewshot=int(shots) if shots.isdecimal() else 0,
        values={
            metric: number(result.score_details.score, f"'{file}'", f"the score of '{result.evaluation_name}'")
            for metric, result in metrics.items()
            if metric in marks
        },
        lower={metric for metric, result in metrics.items() if result.metric_config.lower_is_better},
        primary=next((metric for metric in metrics if metric in marks), None),
        version=str(details["task_version"]) if isinstance(details, dict) and "task_version" in details else None,
        source={"repository": str(source["hf_repo"])} if source.get("hf_repo") else {},
    )


def _metric(result: _Result) -> str:
    return result.metric_config.metric_name or result.metric_config.metric_id or "score"


def _rows(file: Path, results: Sequence[_Result]) -> dict[str, list[Sample]]:
    """Return the samples by evaluation; a document's values under several results are metrics of it."""
    named = {result.evaluation_result_id: _metric(result) for result in results if result.evaluation_result_id}
    found: dict[str, dict[str, Sample]] = {}
    seen: set[tuple[str, str, str]] = set()
    for at, value in read_jsonl(file):
        where = f"'{file}', line {at}"
        try:
            line = _Line.model_validate(value)
        except ValidationError as error:
            raise _fault(error, where, "sample") from None
        metric = named.get(line.evaluation_result_id or "", "score")
        if (key := (line.evaluation_name, line.sample_id, metric)) in seen:
            raise UserError(
                f"{where}: sample '{line.sample_id}' of '{line.evaluation_name}' is there twice; "
                "the samples of several runs were joined."
            )
        seen.add(key)
        of = found.setdefault(line.evaluation_name, {})
        sample = of.get(line.sample_id) or of.setdefault(line.sample_id, _sample(line, len(of), where))
        sample.score[metric] = number(line.evaluation.score, where, "the score")
    if not found:
        raise UserError(f"'{file}' is empty: there are no samples to import.")
    for samples in found.values():
        _number(samples)
        kept = set.intersection(*(set(s.score) for s in samples.values()))
        for sample in samples.values():
            sample.score = {metric: mark for metric, mark in sample.score.items() if metric in kept}
    return {name: list(samples.values()) for name, samples in found.items()}


def _number(samples: dict[str, Sample]) -> None:
    """Number documents by their ids where these are numbers, else in their order."""
    if all(re.fullmatch(r"0|[1-9]\d{0,8}", id_) for id_ in samples):
        for id_, sample in samples.items():
            sample.id = int(id_)


def _sample(line: _Line, position: int, where: str) -> Sample:
    """Return a sample of ours as it was, or what another tool says of a document."""
    own = (line.metadata or {}).get("sample")
    if isinstance(own, dict) and isinstance(own.get("requests"), list) and own["requests"]:
        first = {"prompt": line.input.raw} | own["requests"][0]
        try:
            return Sample.model_validate(own | {"requests": [first, *own["requests"][1:]], "score": {}})
        except (ValidationError, TypeError) as error:
            raise UserError(
                f"{where}: 'metadata.sample' is no sample of a record ({str(error).splitlines()[0]})."
            ) from None
    golds = line.input.reference
    references = [golds] if isinstance(golds, str) else golds or []
    output = line.output or _Output()
    texts = [output.raw] if isinstance(output.raw, str) else output.raw or []
    thought = (
        output.reasoning_trace if isinstance(output.reasoning_trace, str) else "\n".join(output.reasoning_trace or [])
    )
    if line.messages:
        texts = [str(m.get("content") or "") for m in line.messages if m.get("role") == "assistant"][-1:]
    answer: dict[str, Any] = {"text": texts[0] if texts else "", **({"thought": thought} if thought else {})}
    return Sample(
        id=position,
        doc=line.input.model_dump(exclude_none=True, exclude={"formatted"}),
        gold=references[0] if len(references) == 1 else references,
        requests=[
            Asked(
                answer=GivenAnswer(**answer), num_fewshot=0, prompt=line.input.formatted or line.input.raw,
                prompt_tokens=None, reference_tokens=None, truncated=0,
            )
        ],
        score={},
    )  # fmt: skip


def _fault(error: ValidationError, where: str, what: str) -> UserError:
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"])) or "it"
    return UserError(f"{where} is no {what} of Every Eval Ever ({key}: {first['msg']}).")


every_eval_ever = Reader("Records of Every Eval Ever with samples.", find, read)
