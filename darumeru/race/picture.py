"""The picture of a race: the interval of each pair's difference as it closes."""

from __future__ import annotations

from typing import Any

from darumeru.race.contest import Race

COLOURS = ["#b3392b", "#2f6f8f", "#c58a1d", "#5b7f3b", "#7a4f8c", "#8a6d5a"]
INK, PAPER = "#2b2520", "#fffdf9"


def specification(race: Race) -> dict[str, Any]:
    """Return the picture as Vega-Lite: difference in points against documents asked, a band for each pair."""
    import altair as alt

    # Before anything is asked, everything is possible.
    rows: list[dict[str, Any]] = [
        {"pair": f"{p.first} − {p.second}", "documents": 0, "low": -100.0, "high": 100.0} for p in race.pairs
    ]
    rows += [
        {"pair": f"{a} − {b}", "documents": look.documents, "low": 100 * low, "high": 100 * high}
        for look in race.looks
        for a, b, low, high in look.pairs
    ]
    marks = [0.0] if race.margin is None else [0.0, -100 * race.margin, 100 * race.margin]
    colour = alt.Color("pair:N", legend=alt.Legend(title=None, orient="bottom", columns=1, labelLimit=600))
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("documents:Q", axis=alt.Axis(title=f"documents asked (of {race.of:,})", format=",d", tickCount=6))
    )
    reach = max([5.0, *(max(abs(r["low"]), abs(r["high"])) for r in rows[len(race.pairs) + len(rows) // 4 :])])
    scale = alt.Scale(domain=[-reach, reach], clamp=True)
    y = alt.Y("low:Q", scale=scale, axis=alt.Axis(title="difference of scores, points", tickCount=7))
    zero = alt.Chart(alt.Data(values=[{"y": m, "dash": m != 0} for m in marks])).mark_rule(color=INK)
    chart = alt.layer(
        base.mark_area(opacity=0.22).encode(y=y, y2="high:Q", color=colour),
        base.mark_line(strokeWidth=1.5).encode(y=y, color=colour),
        base.mark_line(strokeWidth=1.5).encode(y=alt.Y("high:Q", scale=scale), color=colour),
        zero.encode(y="y:Q", strokeDash=alt.condition("datum.dash", alt.value([4, 4]), alt.value([1, 0]))),
    ).properties(width=640, height=300)
    config = {
        "background": PAPER,
        "font": "Helvetica Neue, Arial, sans-serif",
        "view": {"stroke": None},
        "axis": {"labelColor": INK, "titleColor": INK, "gridColor": "#e7dfd3", "domain": False, "ticks": False},
        "legend": {"labelColor": INK},
        "range": {"category": COLOURS},
    }
    made: dict[str, Any] = chart.to_dict() | {"config": config}
    return made


def to_svg(race: Race) -> str:
    """Return the picture as SVG."""
    import vl_convert

    return str(vl_convert.vegalite_to_svg(specification(race)))
