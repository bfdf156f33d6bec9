"""The figures, drawn once with altair: as SVG and PNG files, and as the specifications that the page draws from its own rows.

Each figure takes its rows as data, so that the page can hand it other rows (filtered, chosen) without Python.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from darumeru.leaderboard.board import Board, Row
from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.means import counted_groups, members_of
from darumeru.leaderboard.tables import label
from darumeru.leaderboard.thinking import series
from darumeru.record.header import SuiteFacts

if TYPE_CHECKING:
    import altair as alt

RED, INK, PAPER = "#b3392b", "#2b2520", "#fffdf9"
COLOURS = ["#b3392b", "#2f6f8f", "#c58a1d", "#5b7f3b", "#7a4f8c", "#8a6d5a", "#3d7d74", "#c05f7e"]
MOST = 20
"""Models in a static figure; the page shows the ones that are chosen."""

CONFIG: dict[str, Any] = {
    "background": PAPER,
    "font": "Helvetica Neue, Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": INK, "titleColor": INK, "gridColor": "#e7dfd3", "domain": False, "ticks": False, "labelLimit": 340},
    "header": {"labelColor": INK, "labelFontWeight": "bold", "title": None},
    "legend": {"labelColor": INK, "titleColor": INK, "labelLimit": 320},
    "range": {"category": COLOURS},
    "bar": {"color": RED}, "circle": {"color": RED}, "rule": {"color": "#57493c"}, "text": {"color": INK},
}  # fmt: skip


def group_values(rows: Sequence[Row], suite: SuiteFacts) -> list[dict[str, Any]]:
    """Return one record for each model and group that counts in the suite's score."""
    return [
        {"model": label(r.entry), "group": g.title, "score": s[0], "low": s[1], "high": s[2]}
        for r in rows
        for g in counted_groups(suite)
        if (s := r.entry.scores.get(g.name))
    ]


def symbol_values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one record for each model whose symbols per token are known."""
    return [
        {"model": label(r.entry), "symbols": r.entry.symbols_per_token[0], "score": s[0], "low": s[1], "high": s[2]}
        for r in rows
        if r.entry.symbols_per_token[0] is not None and (s := r.entry.scores.get("suite"))
    ]


def thinking_values(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one record for each run of a model that can think: from thinking off through the budgets, a series a model."""
    found = []
    for r in rows:
        e, score = r.entry, r.entry.scores.get("suite")
        if not e.thinks or e.spent is None or score is None:
            continue
        budget = e.thinking_budget or 0
        found.append(
            {"model": e.stated.model.name, "series": " · ".join(series(e)), "budget": budget,
             "setting": f"{budget:,}" if budget else "off", "tokens": round(e.spent.tokens, 2),
             "unfinished": e.spent.unfinished, "score": score[0], "low": score[1], "high": score[2]}
        )  # fmt: skip
    return sorted(found, key=lambda v: (v["series"], v["budget"], v["tokens"]))


def heat_values(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """Return one record for each model and task."""
    return [
        {"model": label(r.entry), "task": t, "score": r.entry.scores[t][0]}
        for r in rows
        for t in tasks
        if t in r.entry.scores
    ]


def radar_values(rows: Sequence[Row], suite: SuiteFacts) -> list[dict[str, Any]]:
    """Return points of each model's polygon; the score is the distance from the middle."""
    groups = counted_groups(suite)
    points = []
    for r in rows:
        for i in range(len(groups) + 1):
            group = groups[i % len(groups)]
            angle = 2 * math.pi * i / len(groups)
            value = score.value if (score := r.entry.scores.get(group.name)) else 0.0
            points.append(
                {"model": label(r.entry), "order": i, "x": value * math.sin(angle), "y": value * math.cos(angle),
                 "group": group.title, "score": value}
            )  # fmt: skip
    return points


def curve_values(entries: Sequence[Entry], suite: SuiteFacts, x: str) -> list[dict[str, Any]]:
    """Return one record for each checkpoint and column; `x` is `step` or `tokens_seen`."""
    columns = {"suite": suite.summary} | {g.name: g.title for g in suite.groups}
    found = []
    for e in entries:
        training = e.header.training if e.header else None
        place = training[x] if training else None
        if place is None:
            continue
        for column, title in columns.items():
            if s := e.scores.get(column):
                found.append(
                    {"training": training_name(e), "x": place, "column": title,
                     "score": s[0], "low": s[1], "high": s[2]}
                )  # fmt: skip
    return sorted(found, key=lambda r: (r["training"], r["column"], r["x"]))


def training_name(entry: Entry) -> str:
    """Return which training a checkpoint belongs to: what the header says, else the model's name without its step."""
    import re

    training = entry.stated.training
    name = training and (training.name or training.run)
    if name:
        return name
    return re.sub(r"[-_/ ]*(checkpoint|step)[-_ ]*\d+$", "", entry.stated.model.name) or "training"


def _score(title: str | None = None) -> alt.X:
    import altair as alt

    axis = alt.Axis(format=".1f", tickCount=4, title=title)
    return alt.X("score:Q", scale=alt.Scale(domain=[0, 1]), axis=axis)


def _tips(*fields: str) -> list[Any]:
    import altair as alt

    return [alt.Tooltip(f, format=".3f" if f.endswith(":Q") else "") for f in fields]


def groups_chart(data: Any, groups: Sequence[str]) -> Any:
    """Bars of the groups with 95 % intervals, a panel a group."""
    import altair as alt

    base = alt.Chart().encode(y=alt.Y("model:N", sort=None, axis=alt.Axis(title=None)))
    bars = base.mark_bar(height={"band": 0.62}, opacity=0.8, cornerRadiusEnd=2).encode(
        x=_score(), tooltip=_tips("model:N", "group:N", "score:Q", "low:Q", "high:Q")
    )
    lines = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", axis=alt.Axis(title=None)), x2="high:Q")
    return (
        alt.layer(bars, lines, data=data)
        .properties(width=150, height=alt.Step(22))
        .facet(column=alt.Column("group:N", sort=list(groups), header=alt.Header(title=None)), spacing=14)
    )


def symbols_chart(data: Any, mean: str) -> Any:
    """The suite's mean, which is called `mean`, against Russian symbols per token."""
    import altair as alt

    y = alt.Y("score:Q", scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(title=mean, format=".3f", tickCount=6))
    x = alt.X("symbols:Q", scale=alt.Scale(zero=False, padding=30), axis=alt.Axis(title="symbols per token (RU)"))
    base = alt.Chart(data).encode(x=x)
    return alt.layer(
        base.mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_circle(size=90, opacity=0.85).encode(
            y=y, tooltip=_tips("model:N", "symbols:Q", "score:Q", "low:Q", "high:Q")
        ),
        base.mark_text(align="left", dx=8, dy=-7, fontSize=10, limit=190).encode(y=y, text="model:N"),
    ).properties(width=640, height=340)


def thinking_chart(data: Any, mean: str) -> Any:
    """The suite's mean against the tokens generated for a document, a line a model from thinking off through its budgets."""
    import altair as alt

    # Without thinking a document takes a few tokens, or none; budgets are powers of two.
    x = alt.X(
        "tokens:Q", scale=alt.Scale(type="sqrt"), axis=alt.Axis(title="tokens a document", format=",d", tickCount=6)
    )
    y = alt.Y("score:Q", scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(title=mean, format=".3f", tickCount=6))
    colour = alt.Color("model:N", legend=alt.Legend(title=None, orient="bottom", columns=2))
    base = alt.Chart(data).encode(x=x, color=colour)
    return alt.layer(
        base.mark_rule(opacity=0.7).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y, detail="series:N", order="budget:Q"),
        base.mark_circle(size=80, opacity=1).encode(
            y=y, tooltip=_tips("model:N", "setting:N", "tokens:Q", "score:Q", "low:Q", "high:Q", "unfinished:Q")
        ),
        base.mark_text(align="right", dx=-5, dy=-10, fontSize=10).encode(y=y, text="setting:N"),
    ).properties(width=640, height=340)


def heat_chart(data: Any) -> Any:
    """Model × task; the numbers stand in the cells."""
    import altair as alt

    base = alt.Chart(data).encode(
        x=alt.X("task:N", sort=None, axis=alt.Axis(title=None, labelAngle=-40, orient="top")),
        y=alt.Y("model:N", sort=None, axis=alt.Axis(title=None)),
    )
    dark = alt.condition("datum.score > 0.55", alt.value("#fffdf9"), alt.value("#2b2520"))
    return alt.layer(
        base.mark_rect(cornerRadius=2).encode(
            color=alt.Color("score:Q", scale=alt.Scale(domain=[0, 1], range=["#f5ecdd", "#d98b5f", "#8f2318"]), legend=None),
            tooltip=_tips("model:N", "task:N", "score:Q"),
        ),
        base.mark_text(fontSize=9.5).encode(text=alt.Text("score:Q", format=".2f"), color=dark),
    ).properties(width=alt.Step(43), height=alt.Step(26))  # fmt: skip


def radar_chart(data: Any, groups: Sequence[str]) -> Any:
    """Return the groups of up to four models as polygons."""
    import altair as alt

    spokes: list[dict[str, Any]] = []
    rings: list[dict[str, Any]] = []
    names: list[dict[str, Any]] = []
    for i, group in enumerate(groups):
        angle = 2 * math.pi * i / len(groups)
        spokes += [
            {"x": 0, "y": 0, "s": i, "order": 0},
            {"x": math.sin(angle), "y": math.cos(angle), "s": i, "order": 1},
        ]
        names.append({"x": 1.34 * math.sin(angle), "y": 1.1 * math.cos(angle), "text": group})
    for level in (0.25, 0.5, 0.75, 1.0):
        for i in range(len(groups) + 1):
            angle = 2 * math.pi * i / len(groups)
            rings.append({"x": level * math.sin(angle), "y": level * math.cos(angle), "s": level, "order": i})
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-1.75, 1.75]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-1.2, 1.2]))

    def frame(values: list[dict[str, Any]]) -> Any:
        chart = alt.Chart(alt.Data(values=values)).mark_line(color="#d8cbb9", strokeWidth=1)
        return chart.encode(x=x, y=y, detail="s:N", order="order:Q")

    model = alt.Color("model:N", sort=None, legend=alt.Legend(title=None, orient="bottom", columns=1))
    lines = (
        alt.Chart(data)
        .mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=36, filled=True))
        .encode(x=x, y=y, color=model, order="order:Q", tooltip=_tips("model:N", "group:N", "score:Q"))
    )
    texts = alt.Chart(alt.Data(values=names)).mark_text(fontSize=11).encode(x=x, y=y, text="text:N")
    return alt.layer(frame(rings), frame(spokes), lines, texts).properties(width=500, height=343)


def curve_chart(data: Any, columns: Sequence[str], x_title: str) -> Any:
    """The suite's mean and every group over a training, with the interval as a band and the base model as a line."""
    import altair as alt

    colour = alt.Color("training:N", legend=alt.Legend(title=None, orient="bottom"))
    y = alt.Y("score:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title=None, format=".2f", tickCount=5))
    chart = alt.Chart().encode(x=alt.X("x:Q", axis=alt.Axis(title=x_title, format="~s", tickCount=5)))
    return (
        alt.layer(
            chart.mark_area(opacity=0.16).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour),
            chart.mark_line(point=True, strokeWidth=2).encode(
                y=y, color=colour, tooltip=_tips("training:N", "column:N", "x:Q", "score:Q", "low:Q", "high:Q")
            ),
            alt.Chart().mark_rule(strokeDash=[5, 4]).encode(y=alt.Y("base:Q")),
            data=data,
        )
        .properties(width=210, height=150)
        .facet(facet=alt.Facet("column:N", sort=list(columns), header=alt.Header(title=None)), columns=3)
        .resolve_scale(y="independent")
    )


def with_base(values: list[dict[str, Any]], entries: Sequence[Entry], suite: SuiteFacts) -> list[dict[str, Any]]:
    """Curves with the score of the model that the training began from (step 0, or the header's `training.base`)."""
    titles = {suite.summary: "suite"} | {g.title: g.name for g in suite.groups}
    by_name = {e.header.model.name: e for e in entries if e.header}
    bases: dict[str, Entry] = {}
    for e in entries:
        training = e.header.training if e.header else None
        if training and training.step == 0:
            bases.setdefault(training_name(e), e)
        if training and training.base in by_name:
            bases[training_name(e)] = by_name[training.base]
    for value in values:
        base = bases.get(value["training"])
        score = base.scores.get(titles[value["column"]]) if base else None
        value["base"] = score[0] if score else None
    return values


def specifications(board: Board) -> dict[str, Any]:
    """Return the figures for the page, as Vega-Lite, each with its data named `rows`."""
    import altair as alt

    rows = alt.NamedData(name="rows")
    groups = [g.title for g in board.suite.groups]
    counted = [g.title for g in counted_groups(board.suite)]
    charts = {
        "symbols": symbols_chart(rows, board.suite.summary),
        "thinking": thinking_chart(rows, board.suite.summary),
        "heat": heat_chart(rows),
        "steps": curve_chart(rows, [board.suite.summary, *groups], "steps"),
        "tokens": curve_chart(rows, [board.suite.summary, *groups], "tokens"),
    }
    if counted:
        charts |= {"groups": groups_chart(rows, counted), "radar": radar_chart(rows, counted)}
    return {name: chart.to_dict() for name, chart in charts.items()}


def static_figures(board: Board) -> dict[str, Any]:
    """File name → Vega-Lite with its data, for the board's first section of runs and for the published rows."""
    import altair as alt

    def data(values: list[dict[str, Any]]) -> Any:
        return alt.Data(values=values)

    charts: dict[str, Any] = {}
    drawn: set[str] = set()
    titles = [g.title for g in board.suite.groups]
    counted = [g.title for g in counted_groups(board.suite)]
    for pool in board.pools:
        rows = [r for r in board.rows if r.pool == pool.id][:MOST]
        suffix = "" if pool.kind == "runs" else f"-{pool.kind}"
        if pool.kind in ("incomplete", "imported") or suffix in drawn:
            continue
        drawn.add(suffix)
        if counted:
            charts[f"groups{suffix}"] = groups_chart(data(group_values(rows, board.suite)), counted)
            charts[f"radar{suffix}"] = radar_chart(data(radar_values(rows[:4], board.suite)), counted)
        if symbols := symbol_values(rows):
            charts[f"symbols{suffix}"] = symbols_chart(data(symbols), board.suite.summary)
        if thinking := thinking_values(rows):
            charts[f"thinking{suffix}"] = thinking_chart(data(thinking), board.suite.summary)
        if heat := heat_values(rows, members_of(board.suite)["suite"]):
            charts[f"heat{suffix}"] = heat_chart(data(heat))
    entries = [r.entry for r in board.rows]
    for name, field, title in (("curve-steps", "step", "steps"), ("curve-tokens", "tokens_seen", "tokens")):
        if values := with_base(curve_values(entries, board.suite, field), entries, board.suite):
            charts[name] = curve_chart(data(values), [board.suite.summary, *titles], title)
    return {name: chart.to_dict() | {"config": CONFIG} for name, chart in charts.items()}


def render(specification: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return a figure as SVG and PNG (twice the size, for sharp screens)."""
    return _rendered(json.dumps(specification))


@lru_cache(maxsize=32)
def _rendered(specification: str) -> tuple[str, bytes]:
    """Return a drawn figure; a board that is built again and again has most of them from the build before."""
    import vl_convert

    svg = vl_convert.vegalite_to_svg(json.loads(specification))
    return str(svg), bytes(vl_convert.svg_to_png(svg, scale=2))


@cache
def script() -> str:
    """Vega, Vega-Lite and vega-embed as one classic script, from the package that draws the static figures."""
    import vl_convert

    # Its hundreds of short top-level names must not meet the page's.
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(() => {{\n{bundle}\n}})();\n"
