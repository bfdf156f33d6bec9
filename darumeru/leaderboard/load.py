"""From run folders to what a board needs of them: scores, settings, notes, and bootstrap draws that can be paired.

Every run is read on its own (`read_run`), in several processes if there are many; a run that cannot be read becomes a
`Problem` and never stops the others.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darumeru.errors import DarumeruError, UserError
from darumeru.files import fingerprint, read_jsonl
from darumeru.record.run import Run, Sample, find_runs, load_run
from darumeru.scoring.aggregate import (
    AGGREGATES,
    Aggregate,
    Floats,
    Table,
    cluster_sum,
    f1_macro,
    macro_mean,
    matthews,
    mean,
)
from darumeru.scoring.bootstrap import RESAMPLES, resample, seed_of, units
from darumeru.scoring.summary import with_interval

# In a wheel the published results lie beside this module, in a checkout under leaderboards/.
_INSIDE = Path(__file__).parent / "published.csv"
PUBLISHED = _INSIDE if _INSIDE.is_file() else Path(__file__).parents[2] / "leaderboards" / "published.csv"

Score = tuple[float, float | None, float | None]
"""Value and 95 % bounds."""


@dataclass(frozen=True)
class TaskResult:
    """One task of one run."""

    score: Score
    documents: int
    units: int
    notes: dict[str, Any]
    """Ties, cut prompts, empty and cut answers, tokens, seconds, and all metrics as the record states them."""
    key: str
    """Fingerprint of the documents: only results with equal keys can be paired."""
    draws: NDArray[np.float32] | None
    """(B,) bootstrap values; entry b of every result with this key weighs the documents alike."""
    reproduced: bool
    """Whether the samples give the recorded score."""

    @property
    def higher_is_better(self) -> bool:
        """False for bits per byte."""
        return bool(self.notes.get("higher_is_better", True))


@dataclass(frozen=True)
class Entry:
    """A run, or a published row, on a board."""

    id: str
    name: str
    published: bool
    mode: str
    num_fewshot: int | None
    scores: dict[str, Score]
    """By `suite`, name of a group, and name of a task."""
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    """scores.json without its tasks."""
    path: Path | None = None
    base: str | None = None
    vocab: str | None = None
    method: str | None = None
    url: str | None = None
    note: str | None = None
    symbols_per_token: tuple[float | None, float | None] = (None, None)
    """Russian, English."""
    tokens_per_second: float | None = None

    @property
    def date(self) -> str | None:
        """The day the run was finished."""
        value = self.record.get("finished")
        return str(value)[:10] if value else None


@dataclass(frozen=True)
class Problem:
    """A run that is not on the board, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class About:
    """What a team knows of a model and the record does not say; see `read_about`."""

    name: str | None = None
    base: str | None = None
    vocab: str | None = None
    method: str | None = None
    url: str | None = None
    note: str | None = None


def collect(paths: Iterable[Path]) -> list[Path]:
    """The run folders among `paths`: each is one, or holds some directly under it.

    Raises:
        UserError: a path does not exist, or neither is nor holds a run.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "header.json").is_file():
            found.append(path)
        elif not path.is_dir():
            raise UserError(f"'{path}' is no folder. Give folders of runs, or folders that hold them.")
        elif runs := find_runs(path):
            found += [run.path for run in runs]
        else:
            raise UserError(f"'{path}' holds no run (no header.json, neither there nor one folder below).")
    unique: dict[Path, Path] = {}
    for path in found:
        unique.setdefault(path.resolve(), path)
    return list(unique.values())


def read_run(path: Path) -> tuple[Entry, dict[str, list[Sample]]] | Problem:
    """Everything of a finished run, and its samples by task, in order of their numbers; or what is wrong with it."""
    try:
        run = load_run(path)
        if not run.complete:
            return Problem(_label(run), _unfinished(run))
        run.verify()
        header, scores = run.header, run.scores
        for task in scores["tasks"]:
            if Path(task).name != task:
                raise ValueError(f"task name {task!r} is a path")
        samples = {
            task: sorted((s for _, s in read_jsonl(path / "samples" / f"{task}.jsonl")), key=lambda s: int(s["id"]))
            for task in scores["tasks"]
            if task in header["tasks"]
        }
        return _entry(path, header, scores, samples), samples
    except DarumeruError as error:
        return Problem(path.name, str(error))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError) as error:
        return Problem(path.name, f"The record is not as a run writes it ({type(error).__name__}: {error}).")


def _label(run: Run) -> str:
    return str(run.header["model"]["name"])


def _unfinished(run: Run) -> str:
    if (run.path / "scores.json").is_file() and (failed := run.scores.get("failed")):
        return f"Tasks failed: {', '.join(failed)}. Start the same 'darumeru run' again to compute them."
    return "The run was not finished. Start the same 'darumeru run' again."


def _entry(path: Path, header: dict[str, Any], scores: dict[str, Any], samples: dict[str, list[Sample]]) -> Entry:
    tasks = {
        name: _task(name, result, header["tasks"][name], samples[name]) for name, result in scores["tasks"].items()
    }
    named = {name: _score(scores["groups"][name]) for name in scores["groups"]}
    named |= {name: task.score for name, task in tasks.items()}
    if scores["suite"]["value"] is not None:
        named["suite"] = _score(scores["suite"])
    return Entry(
        id=re.sub(r"[^0-9A-Za-z]", "", str(header.get("id") or fingerprint(header)))[:10],
        name=str(header["model"]["name"]),
        published=False,
        mode=str(header["mode"]),
        num_fewshot=int(header["num_fewshot"]),
        scores={k: v for k, v in named.items() if v is not None},
        tasks=tasks,
        header=header,
        record={k: v for k, v in scores.items() if k not in ("tasks", "groups")},
        path=path,
        symbols_per_token=(_symbols(scores, "ru"), _symbols(scores, "en")),
        tokens_per_second=_speed(scores),
    )


def _score(score: Mapping[str, Any]) -> Score | None:
    if score["value"] is None:
        return None
    low, high = score["low"], score["high"]
    return float(score["value"]), None if low is None else float(low), None if high is None else float(high)


def _symbols(scores: Mapping[str, Any], lang: str) -> float | None:
    """Symbols per generated token: the mean over the copy tasks of a language."""
    found = [
        result["metrics"]["symbols_per_token"]["value"]
        for name, result in scores["tasks"].items()
        if name.startswith("cp_") and name.endswith(f"_{lang}") and "symbols_per_token" in result["metrics"]
    ]
    return float(np.mean(found)) if found else None


def _speed(scores: Mapping[str, Any]) -> float | None:
    """Prompt and generated tokens over the engine's seconds; tasks without a time are left out of both."""
    timed = [r for r in scores["tasks"].values() if r.get("seconds")]
    seconds = sum(float(r["seconds"]) for r in timed)
    return sum(int(r["prompt_tokens"]) + int(r["generated_tokens"]) for r in timed) / seconds if seconds else None


# -- samples ----------------------------------------------------------------------------------------------------------


def table_of_samples(samples: Sequence[Sample], result: Mapping[str, Any]) -> Table:
    """The stored scores of a task's documents as columns: its primary metrics and what their aggregates need."""
    columns = [name for name in (*result["primary"], "bits", "bytes") if name in samples[0]["score"]]
    return Table.build(
        {name: [float(s["score"][name]) for s in samples] for name in columns},
        gold=[s["gold"] if s["pred"] is not None else None for s in samples],
        pred=[s["pred"] for s in samples],
        clusters=[s["cluster"] for s in samples],
        strata=[s["stratum"] for s in samples],
    )


def aggregate_of(name: str, table: Table, result: Mapping[str, Any], whole: bool = True) -> Aggregate | None:
    """The aggregate of a metric; None if the table does not give the recorded value by it.

    Records from before they named their aggregates get the one of five that gives the recorded number.

    Args:
        name: the metric.
        table: the documents.
        result: what the record states of the task.
        whole: whether the table holds all documents of the record, so that the recorded value must come out.
    """
    value = float(result["metrics"][name]["value"])
    stated = AGGREGATES.get((result.get("aggregates") or {}).get(name) or "")
    if stated is not None:
        return stated if not whole or abs(float(stated(table, name, table.ones())[0]) - value) < 1e-6 else None
    if not whole:  # then the name and the structure decide
        value = float(_usual_aggregate(table, name)(table, name, table.ones())[0])
    named = {"f1_macro": f1_macro, "mcc": matthews}
    labelled = bool(len(table.labels)) and bool((table.gold >= 0).all()) and bool((table.pred >= 0).all())
    clustered = units(table) < len(table)
    # Where two give the same number on plain weights, the one that fits the documents' structure comes first.
    order: list[Aggregate] = [mean, cluster_sum, macro_mean]
    if int(table.strata.max()) > 0 and not clustered:
        order = [macro_mean, mean]
    if name in named and labelled:
        order.insert(0, named[name])
    for aggregate in order:
        if name in table.columns and abs(float(aggregate(table, name, table.ones())[0]) - value) < 1e-6:
            return aggregate
    return None


def _usual_aggregate(table: Table, name: str) -> Aggregate:
    named = {"f1_macro": f1_macro, "mcc": matthews, "grade_norm": cluster_sum}
    return named.get(name, macro_mean if int(table.strata.max()) > 0 else mean)


_weights: dict[str, list[NDArray[np.uint8]]] = {}


def _draw_weights(key: str, table: Table, room: int = 100_000_000) -> Iterable[Floats]:
    """The bootstrap weights that belong to a key, as blocks; kept in memory while they fit, since many runs share them."""
    if key not in _weights:
        blocks = resample(table.clusters, table.strata, RESAMPLES, seed_of("board", key), chunk=_chunk(len(table)))
        kept = [np.minimum(block, 255).astype(np.uint8) for block in blocks]
        if sum(b.nbytes for v in _weights.values() for b in v) + RESAMPLES * len(table) > room:
            _weights.clear()
        _weights[key] = kept
    return (block.astype(np.float64) for block in _weights[key])


def _chunk(documents: int) -> int:
    return int(min(RESAMPLES, max(20, 250_000 // max(documents, 1))))


def draw(table: Table, aggregates: Mapping[str, Aggregate], key: str) -> NDArray[np.float32] | None:
    """(B,) bootstrap values of the mean of the metrics; None if there is but one independent unit."""
    if units(table) < 2:
        return None
    blocks = [
        np.mean([aggregate(table, name, weights) for name, aggregate in aggregates.items()], axis=0)
        for weights in _draw_weights(key, table)
    ]
    values: NDArray[np.float32] = np.concatenate(blocks).astype(np.float32)
    return values


def first_split(data: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Name and source of the split that was tested: the first that a header names for a task."""
    for name, source in (data or {}).items():
        return str(name), dict(source)
    return "test", {}


def documents_key(data: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """Fingerprint of which documents were asked and which of them belong together; the wording does not matter."""
    test = first_split(data)[1]
    source = test.get("sha256") or [test.get("source"), test.get("revision"), test.get("rows")]
    return fingerprint([source, [[s["id"], s["cluster"], s["stratum"]] for s in samples]])


def _task(name: str, result: Mapping[str, Any], about: Mapping[str, Any], samples: Sequence[Sample]) -> TaskResult:
    if not samples:
        raise ValueError(f"task '{name}' has no samples")
    primary = list(result["primary"])
    table = table_of_samples(samples, result)
    found = {m: aggregate_of(m, table, result) for m in primary}
    known = {m: a for m, a in found.items() if a is not None}
    key = documents_key(about.get("data") or {}, samples)
    score = _score(result["score"])
    if score is None:
        raise ValueError(f"task '{name}' has no score")
    whole = len(known) == len(primary)
    value, low, high = score
    if low is not None and low == high:  # a record from before the exact bounds were given
        again = with_interval(value, np.full(2, value), int(result["units"]))
        score = value, again["low"], again["high"]
    return TaskResult(
        score=score,
        documents=int(result["documents"]),
        units=int(result["units"]),
        notes={k: v for k, v in result.items() if k != "score"},
        key=key,
        draws=draw(table, known, key) if whole else None,
        reproduced=whole,
    )


# -- published rows and what the team adds ----------------------------------------------------------------------------

GROUPS = ("darummlu", "darumera", "darusum", "darucopy_en", "darucopy_ru")


def read_published(file: Path = PUBLISHED) -> list[Entry]:
    """The published results: reference rows without intervals and samples.

    Raises:
        UserError: the file is missing or a row is not as it must be.
    """
    entries = []
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream), start=2):
                try:
                    entries.append(_published(row, number))
                except (KeyError, ValueError, TypeError) as error:
                    raise UserError(f"'{file}', line {number}: {type(error).__name__}: {error}.") from None
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}).") from None
    return entries


def _published(row: Mapping[str, str], number: int) -> Entry:
    few = row["setting"] == "few-shot"
    scores: dict[str, Score] = {"suite": (float(row["micro_avg"]), None, None)}
    scores |= {group: (float(row[group]), None, None) for group in GROUPS}
    symbols = float(row["symbols_per_token"]) if row["symbols_per_token"] else None
    return Entry(
        id=f"paper-{row['table']}-{number}",
        name=row["model"],
        published=True,
        mode="foundation" if few else "instruct",
        num_fewshot=5 if few else 0,
        scores=scores,
        base=row["base"] or None,
        vocab=row["vocab"] or None,
        method=row["method"] or None,
        note=f"table {row['table']}",
        symbols_per_token=(symbols, None),
    )


def read_about(file: Path) -> dict[str, About]:
    """Model name or run id → what to show of it, from a YAML file.

    Keys of an entry: name, base, vocab, method, note, and url (https only).

    Raises:
        UserError: it is missing, no YAML mapping, or has a key that is not known.
    """
    import yaml

    from darumeru.errors import unknown

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"'{file}' cannot be read.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"'{file}' is not valid YAML ({str(error).splitlines()[0]}).") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise UserError(
            f"'{file}' must map model names or run ids to what is known of them, e.g. 'smol: {{name: SmolLM}}'."
        )
    known: dict[str, About] = {}
    for key, value in content.items():
        for name in value:
            if name not in About.__dataclass_fields__:
                raise unknown(f"key for '{key}' in '{file}'", str(name), About.__dataclass_fields__)
        about = About(**{str(k): str(v) for k, v in value.items()})
        if about.url and not about.url.startswith("https://"):
            raise UserError(f"'{file}', '{key}': url '{about.url}' must begin with https://.")
        known[str(key)] = about
    return known


def describe(entry: Entry, about: Mapping[str, About]) -> Entry:
    """The entry with what is known of it, by run id (its beginning) or model name."""
    for key, value in about.items():
        if entry.name == key or (len(key) >= 6 and entry.id.startswith(key[:10])):
            known = {k: v for k in About.__dataclass_fields__ if (v := getattr(value, k)) is not None}
            entry = replace(entry, **known)
    return entry


def distinct_names(entries: Sequence[Entry]) -> list[Entry]:
    """Runs with distinct names: where two runs of one name differ, what tells them apart is added.

    The first of these that suffices: setting, kind of number, engine, step of training, limit, run id.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.name, []).append(entry)
    renamed: dict[str, str] = {}
    for same in groups.values():
        own = [e for e in same if not e.published]
        if len(own) < 2:
            continue
        parts: dict[str, list[str]] = {e.id: [] for e in own}
        for feature in _FEATURES:
            values = {e.id: feature(e) for e in own}
            if len(set(values.values())) > 1:
                for e in own:
                    parts[e.id].append(values[e.id])
                if len({tuple(p) for p in parts.values()}) == len(own):
                    break
        renamed |= {e.id: f"{e.name} ({', '.join(filter(None, parts[e.id]))})" for e in own}
    return [replace(e, name=renamed[e.id]) if e.id in renamed else e for e in entries]


_FEATURES: tuple[Callable[[Entry], str], ...] = (
    lambda e: (
        f"step {e.header['training']['step']}" if (e.header.get("training") or {}).get("step") is not None else ""
    ),
    lambda e: f"{e.num_fewshot}-shot",
    lambda e: str(data_title(e.header)),
    lambda e: str((e.record.get("engine") or {}).get("dtype") or e.header["engine"]["dtype"]),
    lambda e: str(e.header["engine"]["name"]),
    lambda e: f"first {e.header['limit']}" if e.header.get("limit") else "",
    lambda e: str(e.id)[:6],
)


def data_title(header: Mapping[str, Any]) -> str:
    """Where a run's test rows came from, in words: `mini`, `hub`, the bundle's name, or several of them."""
    sources = []
    for task in header["tasks"].values():
        source = str(first_split(task.get("data"))[1].get("source", "?"))
        sources.append("hub" if source.startswith("hub") else source.removeprefix("bundle:"))
    return " + ".join(dict.fromkeys(sources))


def suite_groups(entries: Sequence[Entry]) -> dict[str, Any]:
    """The suite of a board: `{"name", "summary", "groups": [{"name", "title", "tasks"}]}`, whole even if no run is.

    Our suites are read from their files; one that is not ours from the headers.
    """
    import yaml

    from darumeru.task.suite import TASKS, read_suite

    names = [str(e.header["suite"]["name"]) for e in entries if not e.published]
    name = max(sorted(set(names)), key=names.count) if names else "darumeru"
    file = TASKS / f"{name}.yaml"
    if re.fullmatch(r"[\w-]+", name) and file.is_file():
        suite = read_suite(yaml.safe_load(file.read_text(encoding="utf-8")))
        return {
            "name": suite.name,
            "summary": suite.summary,
            "groups": [group.describe() for group in suite.groups],
        }
    most = max((e for e in entries if e.header and e.header["suite"]["name"] == name), key=lambda e: len(e.tasks))
    groups = [{k: g[k] for k in ("name", "title", "tasks", "counts") if k in g} for g in most.header["suite"]["groups"]]
    return {"name": name, "summary": most.header["suite"]["summary"], "groups": groups}


def workers() -> int:
    """Processes that read runs: as many as cores may be used, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0))))
