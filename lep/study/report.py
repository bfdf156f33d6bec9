"""The report of a study: a page, Markdown, tables as CSV, figures as SVG and PNG, from what was measured alone.

`study.json` has every figure; pages are rendered from it. `cells.csv` has a row for each cell, `curves.csv` one for each
measurement along a training.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.errors import DarumeruError
from darumeru.files import read_json, replacing, write_json, write_text
from darumeru.web.pages import render_page, write_assets
from lep.model.manifest import versions
from lep.study.analysis import (
    Comparison,
    Configuration,
    configurations,
    costs,
    levels,
    longest,
    rank_correlation,
    recommend,
)  # fmt: skip
from lep.study.anova import Anova, analyse, contrasts
from lep.study.figures import axis_titles, figures, name_of
from lep.study.findings import Evidence, judge
from lep.study.grid import SEED, Grid, title
from lep.study.results import Result, load_results
from lep.study.steps import RECORD, STAGES
from lep.study.tables import tables_of
from lep.study.workers import cores

WEB = Path(__file__).parent / "web"
FOLDER = "report"


def write_report(grid: Grid, root: Path) -> Path:
    """Write the report of the cells that are done; returns its page.

    Args:
        grid: the grid.
        root: the folder of the study.

    Raises:
        DarumeruError: no cell is done.
    """
    from darumeru.leaderboard.figures import render

    results = load_results(grid, root)
    states = states_of(grid, root, {r.cell.id for r in results})
    if not results:
        reasons = {s["reason"] for s in states if s["reason"]}
        raise DarumeruError("No cell is done, so there is nothing to report. " + " ".join(sorted(reasons)[:3]))
    items = configurations(results, grid.text)
    report = collect(grid, results, items, states, [read_json(Path(file)) for file in grid.own.beside])
    report["stages"] = made(root)
    folder = root / FOLDER
    write_assets(folder / "assets")
    drawn = figures(items)
    for name, (_, specification) in drawn.items():
        svg, png = render(specification)
        write_text(folder / f"{name}.svg", svg)
        with replacing(folder / f"{name}.png") as file:
            file.write(png)
    write_json(folder / "study.json", report)
    write_text(folder / "cells.csv", cells_csv(grid, results, states))
    write_text(folder / "curves.csv", curves_csv(results))
    tables = tables_of(report)
    shown = [(name, text) for name, (text, _) in drawn.items()]
    for name in ("index.html", "report.md"):
        write_text(
            folder / name, render_page(WEB, f"{name}.j2", r=report, tables=tables, figures=shown, root=".", home=None)
        )
    return folder / "index.html"


def collect(
    grid: Grid,
    results: Sequence[Result],
    items: Sequence[Configuration],
    states: Sequence[Mapping[str, Any]],
    beside: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return all figures of the report.

    Args:
        grid: the grid.
        results: cells that are done.
        items: their configurations.
        states: how each cell of the grid stands.
        beside: `study.json` of other languages.
    """
    comparison = Comparison.of(items)
    top = grid.first.top
    adapted = [item for item in items if not item.control]
    values = np.array([end for item in adapted for end in item.ends])
    places = [levels(item) for item in adapted for _ in item.ends]
    found = longest(adapted) if adapted else []
    correlation = rank_correlation([item.start for item in found], [item.end for item in found])
    spread = comparison.spread
    return {
        "format": 1,
        "name": grid.name,
        "lang": top.lang,
        "text": grid.text,
        "texts": list(top.held_out),
        "axes": axis_titles(items),
        "documents": comparison.documents,
        "spread": None if spread is None else {"value": spread[0], "df": spread[1]},
        "cells": list(states),
        "configurations": _rows(comparison),
        "anova": _anova(analyse(values, places)) if len(values) > 1 else None,
        "contrasts": [
            {**asdict(c), "factor": title(key)}
            for key in (adapted[0].values if adapted else ())
            for c in contrasts(values, places, key)
        ],
        "start_end": asdict(correlation),
        "recommendations": {
            "all": _recommendation(comparison),
            "new vocabulary": _recommendation(Comparison.of(adapted, items)) if 0 < len(adapted) < len(items) else None,
        },
        "findings": [f.to_json() for f in judge(Evidence(list(items), beside, top.lang))],
        "versions": versions(),
        "cores": cores(),
    }


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    best = min(range(len(comparison.items)), key=lambda i: comparison.items[i].end)
    gained = {place: (d, p) for place, _, d, p in comparison.against_controls()}
    rows = []
    for place, (item, rank, cost) in enumerate(
        zip(comparison.items, comparison.ranks, costs(comparison.items), strict=True)
    ):
        first = item.results[0]
        control = gained.get(place)
        rows.append(
            {
                "name": name_of(item), "labels": levels(item), "control": item.control, "seeds": len(item.results),
                "rank": rank, "original": item.original, "start": item.start, "end": item.end,
                "ends": {name: float(np.mean([r.model.texts[name].bits for r in item.results])) for name in first.model.texts},
                "originals": {name: text.bits for name, text in first.original.texts.items()},
                "behind": None if place == best else comparison.difference(best, place).to_json(),
                "against_original": comparison.against_original(place).to_json(),
                "against_control": None if control is None else control[0].to_json() | {"p_holm": control[1]},
                "new_tokens": first.model.tokens - first.original.tokens, "symbols": item.symbols,
                "original_symbols": first.original.texts[item.text].symbols_per_token,
                "fertility": first.model.texts[item.text].tokens_per_word,
                "copied": item.mean("copied"), "suite": item.mean("suite"),
                "operations_per_byte": item.operations_per_byte,
                "characters": float(np.mean([r.characters for r in item.results])), "cost": dict(cost),
            }
        )  # fmt: skip
    return rows


def _anova(found: Anova) -> dict[str, Any]:
    return {
        "effects": [asdict(e) | {"factors": [title(f) for f in e.factors]} for e in found.effects],
        "df": found.df, "variance": found.variance, "count": found.count, "testable": found.testable,
        "largest_residual": float(np.abs(found.residuals).max()),
    }  # fmt: skip


def _recommendation(comparison: Comparison) -> dict[str, Any]:
    found = recommend(comparison)
    return {
        "chosen": name_of(found.chosen), "best": name_of(found.best), "shared": found.shared,
        "of": len(comparison.items), "behind": None if found.behind is None else found.behind.to_json(),
        "control": found.chosen.control, "symbols": found.chosen.symbols, "operations_per_byte": found.chosen.operations_per_byte,
    }  # fmt: skip


def states_of(grid: Grid, root: Path, done: set[str]) -> list[dict[str, Any]]:
    """Return how each cell stands: done, failed, stopped (successive halving), or left out; with the reason."""
    found = []
    for cell in grid.cells:
        file = root / "cells" / f"{cell.id}.json"
        noted = read_json(file) if file.is_file() else {}
        state = "done" if cell.id in done else noted.get("state", "left out")
        state = "left out" if state in ("begun", "done") and cell.id not in done else state
        reason = noted.get("reason", "") if state in ("failed", "stopped") else ""
        values = {title(key): text for key, text in cell.labels.items()}
        found.append({"id": cell.id, "name": cell.name, "values": values, "state": state, "reason": reason})
    return found


def made(root: Path) -> list[dict[str, Any]]:
    """Return for each stage how many of its folders there are, how often they were made, and how long that took."""
    counts: dict[str, dict[str, Any]] = {}
    for file in sorted((root / STAGES).glob(f"*/{RECORD}")):
        found = read_json(file)
        entry = counts.setdefault(file.parent.name.rpartition("-")[0], {"distinct": 0, "times": 0, "seconds": 0.0})
        entry["distinct"] += 1
        entry["times"] += found["times"]
        entry["seconds"] += found["seconds"]
    return [{"stage": name, **entry} for name, entry in counts.items()]


def cells_csv(grid: Grid, results: Sequence[Result], states: Sequence[Mapping[str, Any]]) -> str:
    """Return a row for each cell of the grid; empty where it is not done."""
    by_id = {r.cell.id: r for r in results}
    texts = list(grid.first.top.held_out)
    head = ["cell", *(title(key) for key in grid.cells[0].values), "state", "original", "start", "end"]
    head += [f"end {name}" for name in texts[1:]]
    head += ["symbols per token", "tokens per word", "new tokens in vocabulary", "copied", "suite", "tokens read",
             "characters read", "operations", "seconds"]  # fmt: skip
    rows: list[list[Any]] = [head]
    for cell, state in zip(grid.cells, states, strict=True):
        row: list[Any] = [cell.id, *cell.labels.values(), state["state"]]
        if (r := by_id.get(cell.id)) is not None:
            read, old = r.model.texts, r.original.texts[grid.text]
            row += [old.bits, r.at_start(grid.text), *(read[name].bits for name in texts), read[grid.text].symbols_per_token,
                    read[grid.text].tokens_per_word, r.model.tokens - r.original.tokens, r.model.copied,
                    (r.model.suite or {}).get("value"), r.tokens, r.characters, r.flop, r.seconds]  # fmt: skip
        rows.append([_plain(value) for value in row] + [""] * (len(head) - len(row)))
    return _csv(rows)


def curves_csv(results: Sequence[Result]) -> str:
    """Return a row for each measurement along a training and each held-out text."""
    rows: list[list[Any]] = [["cell", "seed", "step", "tokens", "characters", "seconds", "text", "bits per byte"]]
    for r in results:
        for point in r.curve:
            of_text = {name: bits for name, bits in point["bits"].items() if name} or {
                next(iter(r.model.texts)): point["bits"][""]
            }
            rows += [
                [r.cell.id, r.cell.values.get(SEED, r.cell.seed), point["step"], point["tokens"], point["characters"],
                 _plain(point["seconds"]), name, _plain(bits)]
                for name, bits in of_text.items()
            ]  # fmt: skip
    return _csv(rows)


def _plain(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "=+-@":
        return f"'{value}"  # a spreadsheet would take it for a formula
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(rows)
    return file.getvalue()
