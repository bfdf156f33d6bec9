"""The picture of a signal study: signal over noise, decision accuracy and cost, a row a task."""

from __future__ import annotations

from typing import Any

from darumeru.leaderboard.figures import CONFIG
from darumeru.signal.measure import Summary


def specification(summary: Summary) -> dict[str, Any]:
    """Return the picture as Vega-Lite, with its data."""
    import altair as alt

    measures = sorted(summary.tasks, key=lambda m: -m.accuracy)
    rows = [
        {
            "task": m.task, "counts": m.counts, "ratio": m.ratio, "tokens": m.tokens, "accuracy": m.accuracy,
            "low": max(0.0, m.accuracy - m.accuracy_error), "high": min(1.0, m.accuracy + m.accuracy_error),
        }
        for m in measures
    ]  # fmt: skip
    order = [m.task for m in measures]
    shade = alt.Opacity("counts:N", scale=alt.Scale(domain=[True, False], range=[0.9, 0.4]), legend=None)

    def panel(field: str, title: str, labels: bool = False, **scale: Any) -> tuple[Any, Any]:
        axis = alt.Axis(title=None, labels=labels)
        base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y("task:N", sort=order, axis=axis), opacity=shade)
        return base, alt.X(f"{field}:Q", scale=alt.Scale(**scale), axis=alt.Axis(title=title, tickCount=5))

    base, x = panel("accuracy", "decision accuracy ± standard error", labels=True, domain=[0, 1])
    chance = alt.Chart(alt.Data(values=[{"x": 0.5}])).mark_rule(strokeDash=[4, 4]).encode(x=alt.X("x:Q"))
    accuracy = alt.layer(
        chance,
        base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_circle(size=80).encode(x=x),
    ).properties(width=260, height=alt.Step(20))
    base, x = panel("ratio", "signal / noise", domainMin=0)
    ratio = base.mark_bar(height={"band": 0.6}).encode(x=x).properties(width=170, height=alt.Step(20))
    base, x = panel("tokens", "tokens of an evaluation", domainMin=0)
    tokens = base.mark_bar(height={"band": 0.6}).encode(x=x).properties(width=170, height=alt.Step(20))
    chart: dict[str, Any] = alt.hconcat(accuracy, ratio, tokens, spacing=14).to_dict()
    return chart | {"config": CONFIG}
