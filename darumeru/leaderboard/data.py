"""The board as JSON: for its page, and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from darumeru.leaderboard.board import Board, Row
from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.pools import IMPORTED_POOL
from darumeru.leaderboard.tables import label
from darumeru.leaderboard.thinking import series

MARK = "darumeru leaderboard"


def board_json(board: Board, pages: Mapping[str, str]) -> dict[str, Any]:
    """Return the board for its page."""
    from darumeru.leaderboard.figures import curve_values, specifications, with_base

    entries = [r.entry for r in board.rows]
    curves = {
        name: with_base(curve_values(entries, board.suite, field), entries, board.suite)
        for name, field in (("steps", "step"), ("tokens", "tokens_seen"))
    }
    return {
        "title": board.title,
        "suite": board.suite.to_json(),
        "baseline": board.baseline,
        "lower": board.lower,
        "pools": [asdict(p) for p in board.pools if p.id != IMPORTED_POOL],
        "rows": [_row_json(r, board, pages) for r in board.rows if r.pool != IMPORTED_POOL],
        "figures": specifications(board),
        "curves": curves,
    }


def _row_json(row: Row, board: Board, pages: Mapping[str, str]) -> dict[str, Any]:
    e = row.entry
    scores: dict[str, list[Any]] = {}
    for column in board.columns:
        if score := e.scores.get(column):
            delta = row.deltas.get(column)
            more = [] if delta is None else [round(delta.value, 4), delta.significant]
            scores[column] = [*(None if v is None else round(v, 4) for v in score), *more]
    model = e.header.model if e.header else None
    return {
        "id": e.id, "name": e.name, "label": label(e), "pool": row.pool, "rank": row.rank, "published": e.published,
        "mode": e.mode, "shots": e.num_fewshot, "base": e.base, "vocab": e.vocab, "method": e.method, "note": e.note,
        "url": e.url, "spt": [None if v is None else round(v, 3) for v in e.symbols_per_token],
        "params": model.parameters if model else None, "vsize": model.vocab_size if model else None,
        "tps": None if e.tokens_per_second is None else round(e.tokens_per_second, 1), "covered": row.covered,
        "date": e.date, "page": f"runs/{pages[e.id]}/index.html" if e.id in pages else None,
        "badges": [[b.kind, b.values, b.level] for b in row.badges], "s": scores,
        "thinking": e.thinks, "budget": e.thinking_budget, "cost": _cost(e), "series": " · ".join(series(e)) if model else None,
    }  # fmt: skip


def _cost(entry: Entry) -> dict[str, float | None] | None:
    """Return what a run's answers cost a document."""
    spent = entry.spent
    if spent is None:
        return None
    finished = spent.finished.get("suite")
    return {
        "tokens": round(spent.tokens, 2),
        "thought": round(spent.thought, 2),
        "seconds": None if spent.seconds is None else round(spent.seconds, 4),
        "unfinished": round(spent.unfinished, 4),
        "finished": None if finished is None else round(finished, 4),
    }


def table_json(board: Board) -> dict[str, Any]:
    """Return the board for programs."""
    rows = []
    for row in board.rows:
        item = _row_json(row, board, {})
        for key in ("label", "page", "badges", "s", "spt", "series"):
            del item[key]
        item["scores"] = {
            ("micro_avg" if c == "suite" else c): dict(zip(("value", "low", "high"), row.entry.scores[c], strict=True))
            | ({"difference": asdict(row.deltas[c])} if c in row.deltas else {})
            for c in board.columns
            if c in row.entry.scores
        }
        if (header := row.entry.header) and header.imported:
            item["imported"] = header.imported.to_json()
            others = {t: row.entry.scores[t] for t in board.other_tasks if t in row.entry.tasks}
            item["scores"] |= {
                t: dict(zip(("value", "low", "high"), score, strict=True)) for t, score in others.items()
            }
        item["symbols_per_token"] = dict(zip(("ru", "en"), row.entry.symbols_per_token, strict=True))
        item["badges"] = [asdict(b) for b in row.badges]
        item["finished"] = row.entry.record.finished if row.entry.record else None
        rows.append(item)
    return {
        "generator": MARK,
        "title": board.title,
        "suite": board.suite.to_json(),
        "baseline": board.baseline,
        "pools": [asdict(p) for p in board.pools],
        "rows": rows,
        "not_read": [asdict(p) for p in board.problems],
    }
