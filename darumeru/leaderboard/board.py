"""The board: entries in their pools, ranked, held against a baseline, and marked where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.errors import UserError, unknown
from darumeru.leaderboard.entry import Entry, Problem, data_title
from darumeru.leaderboard.means import draws_of, members_of, with_means_of
from darumeru.leaderboard.pools import IMPORTED_POOL, INCOMPLETE_POOL, Pool, make_pools
from darumeru.record.header import SuiteFacts
from darumeru.record.scores import TaskResult
from darumeru.scoring.aggregate import Floats
from darumeru.scoring.compare import degrees_of_mean, difference, holm, shared_ranks

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Badge:
    """A difference or a warning that a reader must see; `kind` selects its text in the page's language."""

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    level: str = "note"
    """`note`: a difference in how it was asked; `warn`: doubt about the number itself."""


@dataclass(frozen=True)
class Delta:
    """A difference from the baseline."""

    value: float
    significant: bool | None
    """None where it cannot be tested: not the same documents, other versions of the tasks, or no samples."""


@dataclass(frozen=True)
class Row:
    """An entry in its place."""

    entry: Entry
    pool: str
    rank: int | None
    badges: list[Badge]
    deltas: dict[str, Delta]
    covered: int


@dataclass(frozen=True)
class Board:
    """All that is shown."""

    title: str
    suite: SuiteFacts
    pools: list[Pool]
    rows: list[Row]
    problems: list[Problem]
    baseline: str | None

    @property
    def lower(self) -> list[str]:
        """Return the columns whose lower values are the better ones."""
        results = [(name, task) for row in self.rows for name, task in row.entry.tasks.items()]
        lower = {name for name, task in results if not task.higher_is_better}
        return [column for column, tasks in members_of(self.suite).items() if tasks and set(tasks) <= lower]

    @property
    def tasks(self) -> list[str]:
        """Return all tasks of the suite."""
        return [task for group in self.suite.groups for task in group.tasks]

    @property
    def columns(self) -> list[str]:
        """Return the scores: `suite`, groups, tasks."""
        return ["suite", *(g.name for g in self.suite.groups), *self.tasks]

    @property
    def imported(self) -> list[Row]:
        """Return the rows of other tools' results that have tasks which are not the suite's."""
        return [r for r in self.rows if r.entry.imported and set(r.entry.tasks) - set(self.tasks)]

    @property
    def other_tasks(self) -> list[str]:
        """Return the tasks of these rows that are not the suite's."""
        found = [task for row in self.imported for task in row.entry.tasks]
        return [task for task in dict.fromkeys(found) if task not in self.tasks]


def make_board(
    entries: Sequence[Entry],
    suite: SuiteFacts,
    problems: Sequence[Problem] = (),
    baseline: str | None = None,
    title: str = "Darumeru",
) -> Board:
    """Put entries into pools, rank and compare them.

    Args:
        entries: runs and published rows, with distinct names for the runs.
        suite: see `suite_of`.
        problems: runs that could not be read.
        baseline: name or run id of the entry against which all others are held.
        title: of the board.

    Raises:
        UserError: no entry is called `baseline`, or several are.
    """
    tasks = [task for group in suite.groups for task in group.tasks]
    entries = [with_means_of(entry, suite) for entry in entries]
    pools, of = make_pools(entries, suite.name, tasks)
    base = _find(entries, baseline) if baseline else None
    rows: list[Row] = []
    for pool in pools:
        members = sorted((e for e in entries if of[e.id] == pool.id), key=_order)
        ranks = _ranks(members, suite) if pool.kind == "runs" else [None] * len(members)
        usual = _usual(members)
        for entry, rank in zip(members, ranks, strict=True):
            badges = [] if entry.published else _badges(entry, usual, suite, pool, len(members))
            compared = base and base.id != entry.id and pool.id != IMPORTED_POOL
            deltas = _deltas(base, entry, suite) if base and compared else {}
            covered = len(tasks) if entry.published else sum(t in entry.tasks for t in tasks)
            rows.append(Row(entry, pool.id, rank, badges, deltas, covered))
    return Board(title, suite, pools, rows, list(problems), base.name if base else None)


def _order(entry: Entry) -> tuple[float, str, str]:
    return (-entry.scores["suite"][0] if "suite" in entry.scores else 1.0, entry.name, entry.id)


def _find(entries: Sequence[Entry], name: str) -> Entry:
    runs = [e for e in entries if not e.published and name in (e.name, e.id, e.stated.model.name)]
    found = runs or [e for e in entries if e.published and name in (e.name, e.id)]
    if not found:
        raise unknown("baseline", name, {e.name for e in entries})
    if len(found) > 1:
        raise UserError(
            f"Baseline '{name}' is the name of {len(found)} entries. "
            f"Give one of these ids instead: {', '.join(e.id for e in found)}."
        )
    return found[0]


def _units(entry: Entry, tasks: Sequence[str]) -> int:
    return sum(entry.tasks[t].units for t in tasks if t in entry.tasks)


def _degrees(entry: Entry, tasks: Sequence[str], base: Entry | None = None) -> float | None:
    """Return the degrees of freedom of a mean of tasks, or of its difference from the baseline's; None without draws."""
    drawn = [_task_draws(entry, task, base) for task in tasks]
    known = [d for d in drawn if d is not None]
    if not known or len(known) < len(drawn):
        return None
    return degrees_of_mean(known, [entry.tasks[task].df for task in tasks])


def _task_draws(entry: Entry, task: str, base: Entry | None) -> Floats | None:
    sides = [e.tasks[task].draws if task in e.tasks else None for e in (entry, base) if e is not None]
    known = [d.astype(np.float64) for d in sides if d is not None]
    if len(known) < len(sides):
        return None
    return known[0] - known[1] if base is not None else known[0]


def _ranks(members: Sequence[Entry], suite: SuiteFacts) -> list[int | None]:
    """Shared ranks of a pool; a run without draws (one document a task) is not ranked."""
    tasks = members_of(suite)["suite"]
    draws = [draws_of(e, tasks) for e in members]
    able = [i for i, d in enumerate(draws) if d is not None]
    ranks: list[int | None] = [None] * len(members)
    if able:
        values = np.array([members[i].scores["suite"][0] for i in able])
        stacked = np.stack([d for d in draws if d is not None])
        best = members[able[0]]
        found = shared_ranks(values, stacked, _units(best, tasks), df=_degrees(best, tasks))
        for i, rank in zip(able, found, strict=True):
            ranks[i] = rank
    return ranks


def _deltas(base: Entry, entry: Entry, suite: SuiteFacts) -> dict[str, Delta]:
    """Return differences from the baseline; significance Holm-corrected over the entry's columns."""
    values: dict[str, float] = {}
    p: dict[str, float] = {}
    for column, tasks in members_of(suite).items():
        if column not in entry.scores or column not in base.scores:
            continue
        values[column] = entry.scores[column][0] - base.scores[column][0]
        paired = all(
            t in entry.tasks and t in base.tasks and entry.tasks[t].rules == base.tasks[t].rules for t in tasks
        )
        if not paired:
            continue
        a, b = draws_of(base, tasks), draws_of(entry, tasks)
        found = difference(
            base.scores[column][0], entry.scores[column][0], a, b, _units(entry, tasks), _degrees(entry, tasks, base)
        )
        if found.p is not None:
            p[column] = found.p
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return {c: Delta(v, adjusted[c] < 0.05 if c in adjusted else None) for c, v in values.items()}


# -- badges -----------------------------------------------------------------------------------------------------------


def _settings(entry: Entry) -> dict[str, str]:
    """Return what should be equal for two runs to be compared, as text."""
    header = entry.stated
    return {
        "setting": f"{header.mode}, {header.num_fewshot}-shot",
        "engine": header.engine.name,
        "dtype": str(entry.dtype),
        "max_prompt_len": str(header.max_prompt_len),
        "generation": header.how_drawn + (f", {header.repeats} repeats" if header.repeats > 1 else ""),
    }


def _usual(members: Sequence[Entry]) -> dict[str, str]:
    """Return the most frequent value of each setting in a pool."""
    all_settings = [_settings(e) for e in members if not e.published]
    names = all_settings[0] if all_settings else {}
    return {n: Counter(s[n] for s in all_settings).most_common(1)[0][0] for n in names}


def _badges(entry: Entry, usual: Mapping[str, str], suite: SuiteFacts, pool: Pool, size: int) -> list[Badge]:
    header, badges = entry.stated, []
    if header.imported:
        badges.append(Badge("imported", {"tool": entry.tool}))
        if stated := [task for task in header.imported.stated if pool.id != IMPORTED_POOL]:
            badges.append(Badge("stated", {"tool": entry.tool, "tasks": ", ".join(stated)}))
    if header.suite.name != suite.name and pool.id != IMPORTED_POOL:
        badges.append(Badge("suite", {"name": header.suite.name}, "warn"))
    if entry.record and entry.record.failed:
        badges.append(Badge("failed", {"tasks": ", ".join(entry.record.failed)}, "warn"))
    if header.thinking:
        badges.append(Badge(f"thinking_{header.thinking.mode}", {"budget": header.thinking.budget}))
    if "mini" in data_title(header):
        badges.append(Badge("mini", {}, "warn"))
    if header.limit:
        badges.append(Badge("limit", {"n": header.limit}))
    if worded := [name for name, task in header.tasks.items() if task.wording]:
        badges.append(Badge("wording", {"tasks": ", ".join(worded)}, "warn"))
    if pool.kind == "runs" and size > 1:
        for name, value in _settings(entry).items():
            if value == usual[name]:
                continue
            badges.append(Badge(f"other_{name}", {"value": value, "usual": usual[name]}))
    if lost := [name for name, task in entry.tasks.items() if not task.reproduced]:
        badges.append(Badge("unreproduced", {"tasks": ", ".join(lost)}, "warn"))
    return badges + warnings(entry)


def warnings(entry: Entry) -> list[Badge]:
    """Return what puts numbers in doubt: approximate, empty and cut answers, truncated prompts, ties."""
    found = []
    records = {name: task.record for name, task in entry.tasks.items()}
    observed = {
        "approximate_answers": {name: r.approximate_answers for name, r in records.items()},
        "truncated_prompts": {name: r.truncated_prompts for name, r in records.items()},
        "ties": {name: r.ties for name, r in records.items()},
        "empty_answers": {name: r.empty_answers for name, r in records.items()},
    }
    for kind, counts in observed.items():
        if total := sum(counts.values()):
            where = ", ".join(name for name, count in counts.items() if count)
            found.append(Badge(kind, {"n": total, "tasks": where}, "warn"))
    found += _thoughts(entry, records)
    # An answer at the limit is what a copy task's measure is about; where half of the answers of a task are, say so.
    repeats = {name: len(r.repeats.values) if r.repeats else 1 for name, r in records.items()}
    cut = [name for name, r in records.items() if 2 * r.cut_answers > r.documents * repeats[name]]
    if cut:
        found.append(Badge("cut_answers", {"tasks": ", ".join(cut)}))
    return found


def _thoughts(entry: Entry, records: Mapping[str, TaskResult]) -> list[Badge]:
    """Return what thoughts put in doubt: those that did not end, and those inside answers."""
    found = []
    cut = {name: r.unfinished_thoughts for name, r in records.items() if r.unfinished_thoughts}
    if cut and entry.spent:
        finished = entry.spent.finished.get("suite")
        values = {"n": sum(cut.values()), "share": f"{entry.spent.unfinished:.0%}", "tasks": ", ".join(cut)}
        found.append(
            Badge("unfinished_thoughts", values | {"score": "—" if finished is None else f"{finished:.3f}"}, "warn")
        )
    if inside := {name: r.rethought_answers for name, r in records.items() if r.rethought_answers}:
        found.append(Badge("rethought_answers", {"n": sum(inside.values()), "tasks": ", ".join(inside)}, "warn"))
    return found


# -- as a table -------------------------------------------------------------------------------------------------------

_TEXTS = {"model", "source", "data", "mode", "base", "vocab", "method", "thinking", "date", "id", "badges"}


def to_frame(board: Board) -> pd.DataFrame:
    """Return the board as a table with one row an entry: settings, scores with bounds, differences from the baseline."""
    import pandas as pd

    titles = {pool.id: pool.title or pool.kind for pool in board.pools}
    records = []
    for row in board.rows:
        e = row.entry
        record: dict[str, Any] = {
            "rank": row.rank,
            "model": e.name,
            "source": "published" if e.published else "imported" if e.imported else "run",
            "data": titles[row.pool],
            "complete": row.pool not in (INCOMPLETE_POOL, IMPORTED_POOL),
            "mode": e.mode,
            "num_fewshot": e.num_fewshot,
            "base": e.base,
            "vocab": e.vocab,
            "method": e.method,
            "symbols_per_token_ru": e.symbols_per_token[0],
            "symbols_per_token_en": e.symbols_per_token[1],
            "vocab_size": e.header.model.vocab_size if e.header else None,
            "parameters": e.header.model.parameters if e.header else None,
            "tokens_per_second": e.tokens_per_second,
            "thinking": e.thinks,
            "thinking_budget": e.thinking_budget,
            "tokens_per_document": e.spent.tokens if e.spent else None,
            "thought_tokens_per_document": e.spent.thought if e.spent else None,
            "seconds_per_document": e.spent.seconds if e.spent else None,
            "unfinished_thoughts": e.spent.unfinished if e.spent else None,
            "micro_avg_finished": e.spent.finished.get("suite") if e.spent else None,
            "tasks": row.covered,
            "tasks_of_suite": len(board.tasks),
            "date": e.date,
            "id": e.id,
        }
        for column in board.columns:
            value, low, high = e.scores.get(column, (None, None, None))
            name = "micro_avg" if column == "suite" else column
            record |= {name: value, f"{name}_low": low, f"{name}_high": high}
            if board.baseline:
                delta = row.deltas.get(column)
                record |= {f"{name}_diff": delta.value if delta else None}
                record |= {f"{name}_significant": delta.significant if delta else None}
        for task in board.other_tasks:
            value, low, high = e.scores.get(task, (None, None, None)) if e.imported else (None, None, None)
            record |= {task: value, f"{task}_low": low, f"{task}_high": high}
        record["badges"] = "; ".join(b.kind for b in row.badges)
        records.append(record)
    frame = pd.DataFrame.from_records(records)
    for column in ("rank", "num_fewshot", "vocab_size", "parameters", "thinking_budget"):
        if column in frame:
            frame[column] = frame[column].astype("Int64")
    # A column without any value has its type too: table.parquet is of one schema on every board.
    for column in map(str, frame.columns):
        if column in _TEXTS:
            frame[column] = frame[column].astype("string")
        elif column.endswith("_significant"):
            frame[column] = frame[column].astype("boolean")
        elif frame[column].dtype.kind == "O":
            frame[column] = frame[column].astype("float64")
    return frame


def as_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts no spreadsheet takes for formulas: a record may be somebody else's, and so its names."""
    cells = frame.copy()
    for column in cells.columns.intersection(sorted(_TEXTS)):
        cells[column] = cells[column].str.replace(r"^([=+\-@\t\r])", r"'\1", regex=True)
    return cells
