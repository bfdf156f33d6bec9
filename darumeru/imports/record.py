"""Another tool's results → the record of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru import plugins
from darumeru.errors import UserError
from darumeru.evaluation.score import Rules, aggregate, observations
from darumeru.files import file_sha256, fingerprint, slug, staged, write_json
from darumeru.imports.anew import NEEDS_TOKENS, is_of, score_anew
from darumeru.imports.foreign import Foreign, ForeignTask, Reader
from darumeru.record.header import FORMAT, GroupFacts, Header, ImportedFacts, SuiteFacts, TaskFacts
from darumeru.record.run import Run, Sample
from darumeru.task.suite import Catalogue, Group, Suite

if TYPE_CHECKING:
    from darumeru.task import DarumeruTask

_PACKAGE, _GROUP = "darumeru.imports.formats", "darumeru.imports"


def _readers() -> dict[str, Reader]:
    names = plugins.names(_PACKAGE, _GROUP)
    return {name: plugins.find(_PACKAGE, _GROUP, name, Reader, what="format") for name in names}


def find(path: Path) -> list[tuple[str, Path]]:
    """Return (format, file) of all foreign results that a path is, or that a folder holds; none is an empty list."""
    return [(name, file) for name, reader in _readers().items() for file in reader.find(path)]


def import_run(file: Path, output: Path, include_path: Sequence[Path] = ()) -> Run:
    """Make the record of a run of another tool's results; one that is there already is returned.

    Args:
        file: of results; the samples lie beside it.
        output: the folder under which the run gets a folder of its own.
        include_path: folders of further tasks of ours.

    Raises:
        UserError: it is no such file, or its samples are missing or not as the tool writes them.
    """
    if not file.exists():
        raise UserError(f"'{file}' does not exist.")
    found = find(file)
    if not found:
        known = ", ".join(_readers())
        raise UserError(f"'{file}' holds no results that can be imported; formats that can be read: {known}.")
    if len(found) > 1:
        names = ", ".join(f"'{path}'" for _, path in found[:3])
        raise UserError(f"'{file}' holds {len(found)} results: name one of the files ({names}, …).")
    format_, path = found[0]
    try:
        converted = _convert(_readers()[format_].read(path), format_, include_path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"'{path}' is not as {format_} has it ({type(error).__name__}: {error}).") from error
    return _write(converted, output)


@dataclass(frozen=True)
class _Converted:
    header: Header
    suite: Suite
    rules: dict[str, Rules]
    samples: dict[str, list[Sample]]
    more: dict[str, dict[str, Any]]
    failed: dict[str, str]
    finished: str | None


def _write(found: _Converted, output: Path) -> Run:
    header = found.header
    run = Run(output / f"{slug(header.model.name)}-{slug(header.suite.name)}-{str(header.id)[:10]}")
    if run.complete:
        run.verify()
        return run
    scores = aggregate(found.suite, found.rules, found.samples, found.failed, found.more)
    scores.finished = found.finished
    with staged(run.path) as folder:
        write_json(folder / "header.json", header.to_json())
        Run(folder).write(found.samples, scores, complete=True)
    return run


# -- tasks ------------------------------------------------------------------------------------------------------------


def _convert(foreign: Foreign, format_: str, include_path: Sequence[Path]) -> _Converted:
    catalogue = Catalogue(include_path)
    known = catalogue.tasks()
    ours = catalogue.load([name for name in foreign.tasks if name in known], "mini", likelihood=foreign.likelihood)
    rules: dict[str, Rules] = {}
    samples: dict[str, list[Sample]] = {}
    facts: dict[str, TaskFacts] = {}
    stated: list[str] = []
    failed = dict(foreign.failed)
    own = []
    for name, task in foreign.tasks.items():
        if name in ours and is_of(ours[name], task):
            found = score_anew(ours[name], task)
            if found is None:
                failed[name] = NEEDS_TOKENS
                continue
            shown, (samples[name], as_stated) = name, found
            rules[name] = _rules_of_ours(ours[name], task, foreign.seed, as_stated)
            own.append(name)
        else:
            shown, as_stated = _name(name, format_, known), True
            reason = _rules_of_theirs(shown, task, foreign.seed)
            if isinstance(reason, str):
                failed[shown] = reason
                continue
            rules[shown], samples[shown] = reason, task.samples
        stated += [shown] if as_stated else []
        facts[shown] = TaskFacts(
            version=task.version,
            documents=len(task.samples),
            of=task.documents or len(task.samples),
            data={"test": {"source": f"import:{format_}", "rows": task.documents, **task.source}},
        )
    if not rules:
        name, reason = next(iter(failed.items()))
        raise UserError(f"'{foreign.files[0]}' has no task that can be imported; '{name}': {reason}.")
    suite = _suite(catalogue, foreign.suite, format_, own, [name for name in rules if name not in own])
    header = _header(foreign, format_, suite, facts, stated)
    more = {name: observations(samples[name]) for name in rules}
    return _Converted(header, suite, rules, samples, more, failed, foreign.finished)


def _name(name: str, format_: str, known: Sequence[str]) -> str:
    """Return the name of a task that is not ours: one of its own, and harmless in paths."""
    safe = slug(name)
    if safe != name:
        safe = f"{safe}-{fingerprint(name)[:8]}"
    return f"{format_}.{safe}" if safe in known else safe


def _rules_of_ours(task: DarumeruTask, foreign: ForeignTask, seed: int, as_stated: bool) -> Rules:
    rules = Rules.of(task, seed)
    if not as_stated:
        return rules
    return replace(rules, scoring=foreign.scoring)


def _rules_of_theirs(name: str, task: ForeignTask, seed: int) -> Rules | str:
    """Return how the values of a foreign task's documents make its score, or why there is none: means alone are known here."""
    from darumeru.scoring.aggregate import mean
    from darumeru.scoring.bootstrap import seed_of

    marks = {metric: [s.score[metric] for s in task.samples] for metric in task.samples[0].score}
    means = [m for m, values in marks.items() if _is_mean(values, task.values.get(m))]
    if not marks:
        return "none of its metrics is a number for each document"
    if not means:
        metric = task.primary or next(iter(marks))
        how = task.aggregates.get(metric, "another rule")
        return f"its metric '{metric}' is no mean of the documents' values ({how}), so that nothing can be said of its error"
    primary = task.primary if task.primary in means else means[0]
    return Rules(dict.fromkeys(means, mean), (primary,), seed_of(seed, name, "test"), None, primary not in task.lower)


def _is_mean(values: Sequence[float], stated: float | None) -> bool:
    value = sum(values) / len(values)
    return stated is None or abs(value - stated) <= 1e-6 * max(1.0, abs(value))


# -- header -----------------------------------------------------------------------------------------------------------


def _suite(catalogue: Catalogue, stated: str | None, format_: str, own: Sequence[str], others: Sequence[str]) -> Suite:
    """Return our suite with the tasks of it that there are, the others in a group of their own; else one of the tool's name."""
    suites = catalogue.suites()
    counts = {name: len(set(own) & set(suite.tasks)) for name, suite in suites.items()}
    best = max(counts, key=lambda name: (counts[name], name == stated, name == "darumeru"))
    rest = Group("other", "Other tasks", tuple(others), counts=False)
    if not own:
        group = Group("tasks", "Tasks", tuple(others))
        return Suite(format_, f"Mean of {len(others)} tasks", (group,), "0")
    chosen = catalogue.suite(best, list(own))
    groups = (*chosen.groups, rest) if others else chosen.groups
    return Suite(chosen.name, chosen.summary, groups, chosen.version)


def _header(foreign: Foreign, format_: str, suite: Suite, facts: Mapping[str, TaskFacts], stated: list[str]) -> Header:
    first, *rest = foreign.files
    sums = [file_sha256(file) for file in foreign.files]
    groups = [GroupFacts(**group.describe()) for group in suite.groups]
    shots = [foreign.tasks[name].num_fewshot for name in foreign.tasks]
    header = Header(
        format=FORMAT,
        model=foreign.model,
        engine=foreign.engine,
        mode=foreign.mode,
        num_fewshot=max(shots),
        seed=foreign.seed,
        limit=foreign.limit,
        generation=foreign.generation,
        likelihood=foreign.likelihood,
        suite=SuiteFacts(name=suite.name, version=suite.version, summary=suite.summary, groups=groups),
        tasks=dict(facts),
        thinking=foreign.thinking,
        imported=ImportedFacts(
            format=format_,
            version=foreign.version,
            file=first.name,
            sha256=fingerprint(sums) if rest else sums[0],
            stated=stated,
        ),
    )
    header.id = fingerprint(header.to_json())
    return header
