"""`lm-eval`: `results_DATE.json` and, beside it, `samples_TASK_DATE.jsonl`, as `lm_eval --log_samples` writes them.

Tested with files of version 0.4.13; others are read as far as they have the same keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darumeru.errors import UserError
from darumeru.files import read_json, read_jsonl
from darumeru.imports.foreign import Foreign, ForeignTask, Reader, drawn_how, number
from darumeru.record.header import EngineFacts, ModelFacts, ThinkingFacts
from darumeru.record.sample import Asked, GivenAnswer, Sample

_NEVER = -1e9
"""In place of the log-probability of what cannot follow, -inf, which JSON has no number for."""


class _Results(BaseModel):
    """What is read of a results file."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    results: dict[str, dict[str, Any]]
    configs: dict[str, dict[str, Any]]
    config: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    shots: dict[str, int | None] = Field({}, alias="n-shot")
    counts: dict[str, dict[str, int | None]] = Field({}, alias="n-samples")
    higher_is_better: dict[str, dict[str, bool | None]] = {}
    date: float | None = None
    lm_eval_version: str | None = None
    model_source: str | None = None
    model_name: str | None = None
    chat_template: str | None = None
    chat_template_sha: str | None = None


class _Line(BaseModel):
    """A line of a samples file; further keys are the values of metrics."""

    model_config = ConfigDict(extra="allow")

    doc_id: int = Field(ge=0)
    doc: Any
    target: Any = None
    arguments: dict[str, dict[str, Any]]
    resps: list[Any]
    filter: str = "none"
    metrics: list[str]


def find(path: Path) -> list[Path]:
    """Return the results files of a folder and of those below, or the file itself."""
    if path.is_file():
        value = read_json(path) if path.suffix == ".json" else None
        return [path] if isinstance(value, dict) and {"results", "configs"} <= set(value) else []
    return sorted(
        file for depth in ("", "*/", "*/*/") for file in path.glob(f"{depth}results_*.json") if file.is_file()
    )


def read(file: Path) -> Foreign:
    """Return the results of a file, with the samples beside it."""
    try:
        results = _Results.model_validate(read_json(file))
    except ValidationError as error:
        raise _fault(error, f"'{file}'", "results file") from None
    files, tasks, failed = [file], {}, {}
    date = file.stem.rpartition("_")[2]
    for name, config in results.configs.items():
        samples = file.parent / f"samples_{name}_{date}.jsonl"
        if PurePath(samples.name).name != f"samples_{name}_{date}.jsonl" or not samples.is_file():
            failed[name] = f"there are no samples of it beside '{file.name}'"
            continue
        files.append(samples)
        tasks[name] = _task(name, config, results, samples)
    if not tasks:
        raise UserError(
            f"'{file}' has no samples beside it (samples_TASK_{date}.jsonl): run lm_eval with --log_samples."
        )
    return _foreign(results, files, tasks, failed)


def _foreign(results: _Results, files: list[Path], tasks: dict[str, ForeignTask], failed: dict[str, str]) -> Foreign:
    config = results.config
    ours = config.get("darumeru")
    own: dict[str, Any] = ours if isinstance(ours, dict) else {}
    arguments = config.get("model_args")
    name = results.model_name or "model"
    limit, seed = config.get("limit"), config.get("random_seed")
    try:
        thinking = ThinkingFacts.model_validate(own["thinking"]) if "thinking" in own else None
    except ValidationError as error:
        raise _fault(error, f"'{files[0]}'", "results file") from None
    return Foreign(
        model=ModelFacts(
            # A path says nothing elsewhere, and too much of the machine that it is of.
            name=PurePath(name).name if name.startswith((".", "/", "~")) else name,
            revision=_text(config.get("model_revision")),
            weights_sha256=_text(config.get("model_sha")) if own else None,
            parameters=n if isinstance(n := config.get("model_num_parameters"), int) and n > 0 else None,
            chat_template=results.chat_template,
            chat_template_sha256=results.chat_template_sha,
        ),
        engine=EngineFacts(
            name=results.model_source or _text(config.get("model")) or "unknown",
            dtype=_text(config.get("model_dtype")),
            device=_text(config.get("device")),
            model_args={k: v for k, v in arguments.items() if k != "pretrained"} if isinstance(arguments, dict) else {},
        ),
        mode="instruct" if results.chat_template else "foundation",
        tasks=tasks,
        files=files,
        version=results.lm_eval_version,
        failed=failed,
        seed=seed if isinstance(seed, int) else 0,
        limit=int(limit) if isinstance(limit, int | float) and limit >= 1 else None,
        generation=drawn_how(config.get("gen_kwargs")),
        likelihood=bool(own.get("likelihood")),
        thinking=thinking,
        suite=_text(own.get("suite")),
        finished=datetime.fromtimestamp(results.date, UTC).isoformat(timespec="seconds") if results.date else None,
    )


def _task(name: str, config: Mapping[str, Any], results: _Results, file: Path) -> ForeignTask:
    shots = results.shots.get(name) or 0
    listed = [m for m in config.get("metric_list") or [] if isinstance(m, dict)]
    metadata = config.get("metadata")
    scoring = metadata.get("scoring") if isinstance(metadata, dict) else None
    rows = _samples(file, shots)
    stated = results.results.get(name, {})
    metrics = list(next(iter(rows.values())).score)
    values = {
        metric: number(value, f"'{file.parent / name}'", f"{key} of task '{name}'")
        for metric in metrics
        if isinstance(value := stated.get(key := metric if "," in metric else f"{metric},none"), float | int)
    }
    better = results.higher_is_better.get(name, {})
    first = [str(m.get("metric")) for m in listed] + metrics
    return ForeignTask(
        samples=[rows[i] for i in sorted(rows)],
        version=_text(results.versions.get(name)),
        scoring=scoring if isinstance(scoring, int) else None,
        documents=results.counts.get(name, {}).get("original"),
        num_fewshot=shots,
        values=values,
        aggregates={str(m.get("metric")): str(m["aggregation"]) for m in listed if m.get("aggregation")},
        lower={m for m in metrics if better.get(m.partition(",")[0]) is False},
        primary=next((m for name in first for m in metrics if m.partition(",")[0] == name), None),
        by_label=True,
        source={"repository": str(config.get("dataset_path"))} if config.get("dataset_path") else {},
    )


def _samples(file: Path, shots: int) -> dict[int, Sample]:
    """Return the documents by number; what filters make of the answers are further metrics of a document."""
    rows: dict[int, Sample] = {}
    seen: set[tuple[int, str]] = set()
    for at, value in read_jsonl(file):
        where = f"'{file}', line {at}"
        try:
            line = _Line.model_validate(value)
        except ValidationError as error:
            raise _fault(error, where, "samples file") from None
        if (line.doc_id, line.filter) in seen:
            raise UserError(f"{where}: document {line.doc_id} is there twice; the samples of several runs were joined.")
        seen.add((line.doc_id, line.filter))
        sample = rows.setdefault(line.doc_id, _sample(line, shots, where))
        suffix = "" if line.filter == "none" else f",{line.filter}"
        extra = line.model_extra or {}
        for metric in line.metrics:
            if isinstance(found := extra.get(metric), bool | int | float):
                sample.score[f"{metric}{suffix}"] = number(found, where, f"metric '{metric}'")
    if not rows:
        raise UserError(f"'{file}' is empty: there are no samples to import.")
    kept = set.intersection(*(set(s.score) for s in rows.values()))
    for sample in rows.values():  # what is no number of some document is a measure of the task as a whole
        sample.score = {metric: mark for metric, mark in sample.score.items() if metric in kept}
    return rows


def _sample(line: _Line, shots: int, where: str) -> Sample:
    arguments = list(line.arguments.values())
    if len(arguments) != len(line.resps):
        raise UserError(f"{where}: {len(arguments)} requests have {len(line.resps)} responses; they must be as many.")
    # Labels of one question are requests of one prompt.
    questions: list[tuple[str, list[list[GivenAnswer]]]] = []
    for argument, responses in zip(arguments, line.resps, strict=True):
        prompt = str(argument.get("arg_0", ""))
        answers = [_answer(r, where) for r in (responses if isinstance(responses, list) else [responses])]
        if questions and questions[-1][0] == prompt and _labels(answers) and _labels(questions[-1][1][-1]):
            questions[-1][1].append(answers)
        else:
            questions.append((prompt, [answers]))
    common: dict[str, Any] = {"num_fewshot": shots, "prompt_tokens": None, "reference_tokens": None, "truncated": 0}
    requests = [
        Asked(answer=_joined(answers), prompt=prompt, **(common | ({"repeat": repeat} if repeat else {})))
        for prompt, labels in questions
        for repeat, answers in enumerate(zip(*labels, strict=False))
    ]
    sample = Sample(
        id=line.doc_id,
        doc=line.doc if isinstance(line.doc, dict) else {"doc": line.doc},
        gold=line.target,
        requests=requests,
        score={},
    )
    options = [str(argument.get("arg_1")) for argument in arguments]
    if len(requests) == 1 < len(options) and len(logs := requests[0].answer.logprobs) == len(options):
        sample.extra = {"options": options}
        if isinstance(line.target, str):
            sample.pred = options[logs.index(max(logs))].strip()
    return sample


def _labels(answers: Sequence[GivenAnswer]) -> bool:
    return all(a.logprobs or a.unfinished for a in answers)


def _joined(labels: Sequence[GivenAnswer]) -> GivenAnswer:
    """Return the answer to a question, of those about its labels."""
    if len(labels) == 1 or all(a.unfinished for a in labels):
        return labels[0]
    return GivenAnswer(
        logprobs=[a.logprobs[0] if a.logprobs else _NEVER for a in labels],
        greedy=[bool(a.greedy and a.greedy[0]) for a in labels],
    )


def _answer(response: Any, where: str) -> GivenAnswer:
    """Return a generated text, or the log-probability of a continuation: `[-1.25, False]`, as text or as JSON."""
    if isinstance(response, str):
        return GivenAnswer(text=response)
    if isinstance(response, Sequence) and len(response) == 2:
        try:
            found = float(response[0])
        except (TypeError, ValueError):
            found = float("nan")
        if found == float("-inf"):  # as an unfinished thought is exported
            return GivenAnswer(unfinished=True)
        return GivenAnswer(
            logprobs=[number(found, where, "a log-probability")], greedy=[str(response[1]) in ("True", "1")]
        )
    raise UserError(f"{where}: a response is {str(response)[:80]!r}, neither a text nor a log-probability.")


def _fault(error: ValidationError, where: str, what: str) -> UserError:
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"])) or "it"
    return UserError(f"{where} is no {what} of lm-eval 0.4 ({key}: {first['msg']}).")


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)


lm_eval = Reader("Results of lm-eval with samples.", find, read)
