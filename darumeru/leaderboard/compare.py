"""Two runs on the same documents: where they differ, how sure that is, and on which samples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from darumeru.errors import UserError, unknown
from darumeru.leaderboard.about import distinct_names
from darumeru.leaderboard.entry import Entry, Problem, data_title
from darumeru.leaderboard.load import read_run, suite_of
from darumeru.leaderboard.means import members_of
from darumeru.leaderboard.remarks import remarks_on
from darumeru.record.draws import aggregates_of, documents_key, first_split, paired_draws
from darumeru.record.header import SuiteFacts
from darumeru.record.run import Run
from darumeru.record.sample import Sample, gold_text, table_of
from darumeru.scoring.aggregate import Floats, mean
from darumeru.scoring.bootstrap import degrees_of_freedom, units
from darumeru.scoring.compare import Difference, degrees_of_mean, difference, holm, mid_p_test, paired_shares

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 30
"""Samples of a task that the page shows each way."""


@dataclass(frozen=True)
class Flip:
    """A document that one model answered better."""

    id: int
    a: float
    b: float
    prompt: str
    gold: str
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class Line:
    """One task, group or the whole suite."""

    column: str
    title: str
    kind: str
    """`suite`, `group` or `task`."""
    a: float
    b: float
    documents: int
    """That both answered."""
    difference: Difference
    p_holm: float | None
    """Corrected over the tasks, or over the groups; the suite's needs none."""
    better: int
    """Documents on which B is better."""
    worse: int


@dataclass(frozen=True)
class Comparison:
    """Result of `darumeru compare`."""

    a: Entry
    b: Entry
    lines: list[Line]
    flips: dict[str, tuple[list[Flip], list[Flip]]]
    """By task: better under B, worse under B; the largest change first."""
    remarks: list[str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; flips as ids."""
        return {
            "a": {"name": self.a.name, "id": self.a.id},
            "b": {"name": self.b.name, "id": self.b.id},
            "lines": [asdict(line) for line in self.lines],
            "flips": {
                task: {"better": [f.id for f in up], "worse": [f.id for f in down]}
                for task, (up, down) in self.flips.items()
            },
            "remarks": self.remarks,
        }


@dataclass(frozen=True)
class _Paired:
    """A task on the documents that both answered."""

    a: float
    b: float
    draws: tuple[Floats, Floats] | None
    units: int
    df: float
    documents: int
    binary: bool
    """Whether each document is right or wrong and stands for itself, so that McNemar's test applies."""


def compare(a: Run, b: Run, tasks: Sequence[str] = ()) -> Comparison:
    """Compare two finished runs, document by document.

    Args:
        a: the first run.
        b: the second; differences are b - a.
        tasks: only these tasks; without them all that both have.

    Raises:
        UserError: a run is not finished or unreadable, they share no task, or a named task is not in both.
    """
    (entry_a, samples_a), (entry_b, samples_b) = _read(a), _read(b)
    named = distinct_names([entry_a, entry_b]) if entry_a.id != entry_b.id else [entry_a, entry_b]
    entry_a, entry_b = named
    common = [t for t in entry_a.tasks if t in entry_b.tasks]
    for task in tasks:
        if task not in common:
            raise unknown("task of both runs", task, common)
    chosen = [t for t in common if t in tasks] if tasks else common
    if not chosen:
        raise UserError(
            f"The runs share no task: '{entry_a.name}' has {', '.join(entry_a.tasks)}; "
            f"'{entry_b.name}' has {', '.join(entry_b.tasks)}."
        )
    remarks = remarks_on(entry_a, entry_b)
    pairs: dict[str, _Paired | None] = {}
    flips: dict[str, tuple[list[Flip], list[Flip]]] = {}
    for task in chosen:
        left, right, remark = _shared(task, entry_a, entry_b, samples_a[task], samples_b[task])
        remarks += [remark] if remark else []
        if entry_a.tasks[task].scoring != entry_b.tasks[task].scoring:
            left, right = [], []
        pairs[task] = _pair(task, entry_a, left, right) if left else None
        up, down = _flips(left, right, entry_a.tasks[task].record.primary)
        flips[task] = (up, down) if entry_a.tasks[task].higher_is_better else (down, up)
    suite = suite_of([entry_a])
    return Comparison(entry_a, entry_b, _lines(entry_a, entry_b, suite, chosen, pairs, flips), flips, remarks)


def _read(run: Run) -> tuple[Entry, dict[str, list[Sample]]]:
    result = read_run(run.path)
    if isinstance(result, Problem):
        raise UserError(f"Run '{run.path}': {result.reason}")
    return result


def _shared(
    task: str, a: Entry, b: Entry, left: Sequence[Sample], right: Sequence[Sample]
) -> tuple[list[Sample], list[Sample], str | None]:
    """Return the samples of the documents that both answered, in one order, and a remark where that is not all."""

    def source(entry: Entry) -> Any:
        return first_split(entry.stated.tasks[task].data)[1].get("sha256")

    of_b = {s.id: s for s in right}
    both = [s for s in left if s.id in of_b]
    same = source(a) == source(b)
    if a.imported or b.imported:  # what another tool read is known by the documents alone
        both = [s for s in both if s.doc == of_b[s.id].doc]
        same = bool(both)
    if not same:
        return [], [], f"{task}: the runs read different data, so nothing is paired."
    if len(both) == len(left) == len(right):
        return both, [of_b[s.id] for s in both], None
    remark = f"{task}: {len(both)} documents are in both runs ({len(left)} and {len(right)}); scores are those on them."
    return both, [of_b[s.id] for s in both], remark


def _pair(task: str, entry: Entry, left: Sequence[Sample], right: Sequence[Sample]) -> _Paired | None:
    """Return scores and draws of both on their shared documents; None if the recorded score cannot be reproduced."""
    result = entry.tasks[task].record
    primary = result.primary
    tables = [table_of(samples, (*primary, "bits", "bytes")) for samples in (left, right)]
    whole = tables[0]
    aggregates = aggregates_of(result, whole, whole=len(left) == result.documents)
    if aggregates is None:
        return None
    values = [float(np.mean([f(table, n, table.ones())[0] for n, f in aggregates.items()])) for table in tables]
    key = documents_key(entry.stated.tasks[task].data, left)
    drawn = [paired_draws(table, aggregates, key) for table in tables]
    draws = None if drawn[0] is None or drawn[1] is None else (drawn[0].astype(float), drawn[1].astype(float))
    marks = [table.columns[primary[0]] for table in tables]
    binary = all(bool(np.isin(m, (0.0, 1.0)).all()) for m in marks)
    single = len(primary) == 1 and units(whole) == len(whole) and aggregates[primary[0]] is mean
    return _Paired(values[0], values[1], draws, units(whole), degrees_of_freedom(whole), len(left), binary and single)


def _answer(sample: Sample) -> str:
    if sample.pred is not None:
        return sample.pred
    said = [r.answer.text for r in sample.requests if "text" in r.answer]
    return "\n".join(said) if said else json.dumps(sample.extra, ensure_ascii=False)


def _flips(left: Sequence[Sample], right: Sequence[Sample], primary: Sequence[str]) -> tuple[list[Flip], list[Flip]]:
    """Return the documents whose value is higher under B, and those whose value is lower; the largest change first."""
    changed = []
    for x, y in zip(left, right, strict=True):
        a, b = (float(np.mean([s.score[m] for m in primary])) for s in (x, y))
        if abs(a - b) > 1e-9:
            prompt = x.requests[0].prompt if x.requests else ""
            changed.append(Flip(x.id, a, b, prompt, gold_text(x.gold), _answer(x), _answer(y)))
    changed.sort(key=lambda f: -abs(f.b - f.a))
    return [f for f in changed if f.b > f.a], [f for f in changed if f.b < f.a]


def _lines(
    a: Entry,
    b: Entry,
    suite: SuiteFacts,
    chosen: Sequence[str],
    pairs: Mapping[str, _Paired | None],
    flips: Mapping[str, tuple[list[Flip], list[Flip]]],
) -> list[Line]:
    titles = {"suite": suite.summary} | {g.name: g.title for g in suite.groups}
    columns = members_of(suite)
    columns |= {t: [t] for t in chosen if t not in columns}
    lines = []
    for column, tasks in columns.items():
        if not tasks or not all(t in chosen for t in tasks):
            continue
        kind = "suite" if column == "suite" else "group" if column in titles else "task"
        known = [p for t in tasks if (p := pairs[t]) is not None]
        up, down = (sum(len(flips[t][way]) for t in tasks) for way in (0, 1))
        if len(known) < len(tasks):
            values = [float(np.mean([e.tasks[t].score[0] for t in tasks])) for e in (a, b)]
            found = difference(values[0], values[1], None, None, 0)
        else:
            values = [float(np.mean([getattr(p, side) for p in known])) for side in "ab"]
            draws = [p.draws for p in known if p.draws is not None]
            paired = len(draws) == len(known)
            both = [np.mean([d[side] for d in draws], axis=0) if paired else None for side in (0, 1)]
            df = degrees_of_mean([y - x for x, y in draws], [p.df for p in known]) if paired else None
            found = difference(values[0], values[1], both[0], both[1], sum(p.units for p in known), df)
            if kind == "task" and known[0].binary and paired:
                low, high = paired_shares(up, down, known[0].documents)
                found = replace(found, low=low, high=high, p=mid_p_test(up, down), test="mid-p")
        documents = sum(p.documents for p in known)
        lines.append(
            Line(column, titles.get(column, column), kind, values[0], values[1], documents, found, None, up, down)
        )
    return _corrected(lines)


def _corrected(lines: Sequence[Line]) -> list[Line]:
    """Holm's correction within tasks and within groups."""
    done = list(lines)
    for kind in ("suite", "group", "task"):
        places = [i for i, line in enumerate(done) if line.kind == kind and line.difference.p is not None]
        p = [done[i].difference.p or 0.0 for i in places]
        for i, value in zip(places, holm(p), strict=True):
            done[i] = replace(done[i], p_holm=value)
    return done


# -- shown ------------------------------------------------------------------------------------------------------------


def _p_text(p: float | None) -> str:
    return "—" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _cells(line: Line) -> list[str]:
    d = line.difference
    bounds = "—" if d.low is None or d.high is None else f"[{d.low:+.3f}, {d.high:+.3f}]"
    arrow = "" if line.p_holm is None or line.p_holm >= 0.05 else " ▲" if d.value > 0 else " ▼"
    smallest = "—" if d.smallest is None else f"{d.smallest:.3f}"
    return [
        f"{line.a:.3f}", f"{line.b:.3f}", f"{d.value:+.3f}{arrow}", bounds, _p_text(d.p), _p_text(line.p_holm),
        "—" if d.test == "none" else d.test, smallest, f"+{line.better} −{line.worse}", str(line.documents),
    ]  # fmt: skip


HEAD = ["A", "B", "B − A", "95 % interval", "p", "p (Holm)", "test", "smallest", "flips", "n"]
NOTE = (
    "Paired on the documents that both answered. ▲ ▼: significant at the 5 % level after Holm's correction, within tasks and "
    "within groups. smallest: the difference that so many documents show with 80 % power. flips: documents better and worse "
    "under B."
)


def _named(entry: Entry) -> str:
    """`model, data mini`."""
    return f"{entry.name}, data {data_title(entry.stated)}"


def to_terminal(comparison: Comparison) -> RenderableType:
    """Return the comparison for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    title = Text(f"A: {_named(comparison.a)}\nB: {_named(comparison.b)}")
    grid = Grid(
        title=title,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    grid.add_column("", no_wrap=True)
    # What fits into 80 columns; Markdown, JSON and the page have the rest.
    kept = [i for i, name in enumerate(HEAD) if name not in ("p", "test", "n")]
    for i in kept:
        grid.add_column(HEAD[i], justify="right", no_wrap=True)
    styles = {"suite": "bold green", "group": "bold cyan", "task": ""}
    for line in comparison.lines:
        texts = _cells(line)
        cells = [Text(texts[i], styles[line.kind]) for i in kept]
        grid.add_row(Text(line.title, styles[line.kind]), *cells)
    return Group(grid, *(Text(r, "yellow") for r in comparison.remarks), Text(NOTE, "dim"))


def to_markdown(comparison: Comparison) -> str:
    """Return the comparison as a Markdown table."""
    from darumeru.web.text import escape_markdown as e

    lines = [
        f"A: {e(_named(comparison.a))}  ", f"B: {e(_named(comparison.b))}\n",
        "| | " + " | ".join(HEAD) + " |", "| :-- |" + " --: |" * len(HEAD),
    ]  # fmt: skip
    for line in comparison.lines:
        name = e(line.title) if line.kind == "task" else f"**{e(line.title)}**"
        lines.append(f"| {name} | " + " | ".join(_cells(line)) + " |")
    return "\n".join([*lines, "", *(f"* {e(r)}" for r in comparison.remarks), "", NOTE]) + "\n"


_FILES = {"assets", "index.html", "compare.md", "compare.json"}


def write_page(comparison: Comparison, output: Path) -> None:
    """Write the comparison as a folder with a page, compare.md and compare.json.

    Raises:
        UserError: the folder holds something else.
    """
    from darumeru.files import is_empty, staged, write_json, write_text
    from darumeru.leaderboard.pages import WEB
    from darumeru.web.pages import render_page, write_assets

    there = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if output.exists() and not (output.is_dir() and (is_empty(output) or "compare.json" in there <= _FILES)):
        raise UserError(f"--output '{output}' holds files that no comparison wrote. Give a new folder or an empty one.")
    rows = [(line, _cells(line)) for line in comparison.lines]
    flips = {
        t: (up[:SHOWN], down[:SHOWN], len(up), len(down)) for t, (up, down) in comparison.flips.items() if up or down
    }
    data = [data_title(entry.stated) for entry in (comparison.a, comparison.b)]
    page = render_page(
        WEB,
        "compare.html.j2",
        c=comparison,
        rows=rows,
        head=HEAD,
        note=NOTE,
        flips=flips,
        data=data,
        root=".",
        home=None,
    )
    with staged(output) as stage:
        write_assets(stage / "assets")
        write_text(stage / "index.html", page)
        write_text(stage / "compare.md", to_markdown(comparison))
        write_json(stage / "compare.json", comparison.to_json())
