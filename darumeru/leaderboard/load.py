"""From run folders to what a board needs of them: scores, settings, notes, and bootstrap draws that can be paired.

Every run is read on its own (`read_run`), in several processes if there are many; a run that cannot be read becomes a
`Problem` and never stops the others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from darumeru.errors import DarumeruError, UserError
from darumeru.files import fingerprint
from darumeru.imports import find, import_run
from darumeru.leaderboard.entry import Bounded, Entry, Problem, Result
from darumeru.leaderboard.thinking import spent_by
from darumeru.record.draws import aggregates_of, contents_key, documents_key, paired_draws
from darumeru.record.header import GroupFacts, Header, SuiteFacts, TaskFacts
from darumeru.record.run import Run, find_runs, load_run
from darumeru.record.sample import Sample, read_samples, table_of
from darumeru.record.scores import Score, Scores, TaskResult
from darumeru.scoring.bootstrap import degrees_of_freedom
from darumeru.scoring.summary import with_interval


def collect(paths: Iterable[Path]) -> list[Path]:
    """Return the run folders among `paths`: each is one, or holds some directly under it.

    Raises:
        UserError: a path does not exist, or neither is nor holds a run.
    """
    runs, others = gather(paths)
    if others and not runs:
        raise UserError(f"'{others[0]}' is of another tool: 'darumeru import-run' makes a record of it.")
    return runs


def gather(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Return the run folders and the files of other tools' results that `paths` are, or hold.

    Raises:
        UserError: a path does not exist, or holds neither.
    """
    runs: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if (path / "header.json").is_file():
            runs.append(path)
            continue
        if not path.exists():
            raise UserError(f"'{path}' is no folder. Give folders of runs, or folders that hold them.")
        below = [run.path for run in find_runs(path)]
        foreign = [file for _, file in find(path)]
        if not below and not foreign:
            raise UserError(
                f"'{path}' holds no run (no header.json, neither there nor one folder below), "
                "and no results of another tool that can be imported."
            )
        runs += below
        others += foreign
    return _distinct(runs), _distinct(others)


def _distinct(paths: Iterable[Path]) -> list[Path]:
    unique: dict[Path, Path] = {}
    for path in paths:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def import_all(files: Iterable[Path], output: Path) -> tuple[list[Path], list[Problem]]:
    """Make records of other tools' results; what cannot be imported is a problem.

    Args:
        files: as `gather` returns them.
        output: the folder of the records.
    """
    runs, problems = [], []
    for file in files:
        try:
            runs.append(import_run(file, output).path)
        except DarumeruError as error:
            problems.append(Problem(file.name, str(error)))
    return runs, problems


def read_run(path: Path, contents: Mapping[str, str] | None = None) -> tuple[Entry, dict[str, list[Sample]]] | Problem:
    """Return everything of a finished run, and its samples by task, in order of their numbers; or what is wrong with it.

    Args:
        path: of the run.
        contents: `Result.content` of runs of ours → `Result.key`: with it, what was imported is paired with the runs of ours that
            have its very documents. None where nothing is imported, as it takes time.
    """
    try:
        run = load_run(path)
        if not run.complete:
            return Problem(_label(run), _unfinished(run))
        run.verify()
        header, scores = run.header, run.scores
        for task in scores.tasks:
            if Path(task).name != task:
                raise ValueError(f"task name {task!r} is a path")
        samples = {
            task: sorted(read_samples(path / "samples" / f"{task}.jsonl"), key=lambda s: s.id)
            for task in scores.tasks
            if task in header.tasks
        }
        return _entry(path, header, scores, samples, contents), samples
    except DarumeruError as error:
        return Problem(path.name, str(error))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        return Problem(path.name, f"The record is not as a run writes it ({type(error).__name__}: {error}).")


def _label(run: Run) -> str:
    return run.header.model.name


def _unfinished(run: Run) -> str:
    if (run.path / "scores.json").is_file() and (failed := run.scores.failed):
        return f"Tasks failed: {', '.join(failed)}. Start the same 'darumeru run' again to compute them."
    if any((run.path / name).is_file() for name in ("until.json", "race.json")):
        return "Only a part of its documents was asked (--until, --race-against). 'darumeru run' asks the rest."
    return "The run was not finished. Start the same 'darumeru run' again."


def _entry(
    path: Path,
    header: Header,
    scores: Scores,
    samples: dict[str, list[Sample]],
    contents: Mapping[str, str] | None = None,
) -> Entry:
    imported = header.imported is not None
    tasks = {
        name: _task(name, result, header.tasks[name], samples[name], contents, imported)
        for name, result in scores.tasks.items()
    }
    named = {name: _bounded(score) for name, score in (*scores.groups.items(), ("suite", scores.suite))}
    named |= {name: task.score for name, task in tasks.items()}
    return Entry(
        id=re.sub(r"[^0-9A-Za-z]", "", header.id or fingerprint(header.to_json()))[:10],
        name=header.model.name,
        published=False,
        mode=header.mode,
        num_fewshot=header.num_fewshot,
        scores={k: v for k, v in named.items() if v is not None},
        tasks=tasks,
        header=header,
        record=scores.model_copy(update={"tasks": {}}),
        path=path,
        symbols_per_token=(_symbols(scores, "ru"), _symbols(scores, "en")),
        tokens_per_second=_speed(scores),
        spent=None if imported else spent_by(scores, header.suite),
    )


def _bounded(score: Score) -> Bounded | None:
    return None if score.value is None else Bounded(score.value, score.low, score.high)


def _symbols(scores: Scores, lang: str) -> float | None:
    """Return the symbols per generated token: the mean over the copy tasks of a language."""
    found = [
        result.metrics["symbols_per_token"].value
        for name, result in scores.tasks.items()
        if name.startswith("cp_") and name.endswith(f"_{lang}") and "symbols_per_token" in result.metrics
    ]
    return float(np.mean([v for v in found if v is not None])) if found else None


def _speed(scores: Scores) -> float | None:
    """Return prompt and generated tokens over the engine's seconds; tasks without a time are left out of both."""
    timed = [(r.prompt_tokens + r.generated_tokens, r.seconds) for r in scores.tasks.values() if r.seconds]
    return sum(tokens for tokens, _ in timed) / sum(s for _, s in timed) if timed else None


def _task(
    name: str,
    result: TaskResult,
    about: TaskFacts,
    samples: Sequence[Sample],
    contents: Mapping[str, str] | None,
    imported: bool,
) -> Result:
    if not samples:
        raise ValueError(f"task '{name}' has no samples")
    table = table_of(samples, (*result.primary, "bits", "bytes"))
    aggregates = aggregates_of(result, table)
    key = documents_key(about.data, samples)
    content = contents_key(samples) if contents is not None else None
    if imported and content and contents is not None:
        key = contents.get(content, content)
    score = _bounded(result.score)
    if score is None:
        raise ValueError(f"task '{name}' has no score")
    if score.low is not None and score.low == score.high:  # a record from before the exact bounds were given
        again = with_interval(score.value, np.full(2, score.value), result.units)
        score = Bounded(score.value, again["low"], again["high"])
    return Result(
        score=score,
        record=result,
        key=key,
        version=about.version,
        draws=paired_draws(table, aggregates, key) if aggregates is not None else None,
        df=degrees_of_freedom(table),
        reproduced=aggregates is not None,
        content=content,
    )


def suite_of(entries: Sequence[Entry]) -> SuiteFacts:
    """Return the suite of a board, whole even if no run is.

    Our suites are read from their files; one that is not ours from the headers.
    """
    import yaml

    from darumeru.task.suite import TASKS, read_suite

    runs = [e for e in entries if not e.published]
    known = [e for e in runs if not e.imported] or [
        e for e in runs if (TASKS / f"{e.stated.suite.name}.yaml").is_file()
    ]
    headers = [(e.stated.suite, len(e.tasks)) for e in known or runs]
    names = [suite.name for suite, _ in headers]
    name = max(sorted(set(names)), key=names.count) if names else "darumeru"
    file = TASKS / f"{name}.yaml"
    if re.fullmatch(r"[\w-]+", name) and file.is_file():
        suite = read_suite(yaml.safe_load(file.read_text(encoding="utf-8")))
        groups = [GroupFacts(**group.describe()) for group in suite.groups]
        return SuiteFacts(name=suite.name, summary=suite.summary, groups=groups)
    most = max(((s, count) for s, count in headers if s.name == name), key=lambda pair: pair[1])[0]
    return SuiteFacts(name=name, summary=most.summary, groups=most.groups)


def workers() -> int:
    """Processes that read runs: as many as cores may be used, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0))))
