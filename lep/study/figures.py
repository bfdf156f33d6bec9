"""The figures of a study, as Vega-Lite specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darumeru.leaderboard.figures import CONFIG
from lep.study.analysis import Configuration, levels, longest
from lep.study.grid import SEED, TOKENS, title

_MOST = 24
"""Lines of a figure; of more configurations those that end best."""


def name_of(item: Configuration, *, without: Sequence[str] = ()) -> str:
    """Return a configuration's name: its values, short."""
    values = {key: value for key, value in levels(item).items() if key not in (SEED, *without) and value != "–"}
    return (
        " · ".join(f"{value} {_UNIT[key]}" if key in _UNIT else value for key, value in values.items()) or "all alike"
    )


_UNIT = {"vocab.extend.add": "new", TOKENS: "tokens"}
"""What a number of an axis counts."""

_PADDING = {"left": 5, "top": 5, "bottom": 5, "right": 50}
"""Room for names at the right: a browser's letters may be wider than those that the drawing was laid out with."""


def figures(items: Sequence[Configuration]) -> dict[str, tuple[str, Any]]:
    """Return file name → (what it shows, specification), of the figures that there are data for."""
    found: dict[str, tuple[str, Any]] = {
        "fertility": ("Tokens per word against the number of new tokens, for each held-out text", fertility(items)),
        "bits": (
            "Bits per byte against training tokens, a line a configuration, with the range of its seeds",
            curves(items),
        ),
    }
    for what, name in (("suite", "Benchmark score"), ("copied", "Share of a line that is copied")):
        values = [item.mean(what) for item in items]
        if all(value is not None for value in values):
            found[f"{what}-symbols"] = (f"{name} against symbols per token", scatter_of(items, what, name))
    if len([item for item in items if not item.control]) > 1:
        found["start-end"] = ("Bits per byte before and after training", start_end(items))
    return {
        name: (text, chart.configure(**CONFIG, padding=_PADDING).to_dict()) for name, (text, chart) in found.items()
    }


def fertility(items: Sequence[Configuration]) -> Any:
    """Tokens per word of each held-out text against new tokens."""
    import altair as alt

    values: list[Mapping[str, Any]] = []
    for item in items:
        result = item.results[0]
        new = result.model.tokens - result.original.tokens
        line = " · ".join(value for key, value in levels(item).items() if key in ("base", "corpus")) or "base"
        values += [
            {"base": line, "new": new, "text": name, "fertility": text.tokens_per_word}
            for name, text in result.model.texts.items()
        ]
    bases = len({value["base"] for value in values})
    legend = alt.Legend(title=None, orient="bottom") if bases > 1 else None
    unique = [dict(pairs) for pairs in dict.fromkeys(tuple(value.items()) for value in values)]
    return (
        alt.Chart(alt.Data(values=unique))
        .mark_line(point=True)
        .encode(
            x=alt.X("new:Q", axis=alt.Axis(title="new tokens", format=",d", tickCount=5)),
            y=alt.Y("fertility:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="tokens per word")),
            color=alt.Color("base:N", legend=legend),
            column=alt.Column("text:N", sort=None, title=None),
        )
        .properties(width=260, height=200)
    )


def curves(items: Sequence[Configuration]) -> Any:
    """Bits per byte of the first text along each training: mean and range of seeds, a panel for each length."""
    import altair as alt

    shown = sorted(items, key=lambda item: item.end)[:_MOST]
    values = []
    for item in items:
        if item not in shown:
            continue
        for points in zip(*(r.curve for r in item.results), strict=False):
            bits = [float(p["bits"].get(item.text, p["bits"].get(""))) for p in points]
            values.append(
                {"configuration": name_of(item, without=(TOKENS,)), "length": f"{item.results[0].cell.tokens:,} tokens",
                 "tokens": sum(p["tokens"] for p in points) / len(points), "bits": sum(bits) / len(bits),
                 "low": min(bits), "high": max(bits)}
            )  # fmt: skip
    order = [f"{n:,} tokens" for n in sorted({item.results[0].cell.tokens for item in shown})]
    colour = alt.Color(
        "configuration:N",
        sort=None,
        scale=alt.Scale(scheme="tableau20"),
        legend=alt.Legend(title=None, symbolOpacity=1),
    )
    x = alt.X("tokens:Q", axis=alt.Axis(title="training tokens", format="~s", tickCount=5))
    base = alt.Chart().encode(x=x, color=colour)
    y = alt.Y("bits:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="bits per byte (lower is better)"))
    return (
        alt.layer(
            base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q"),
            base.mark_line(point=True, strokeWidth=1.8).encode(y=y),
            data=alt.Data(values=values),
        )
        .properties(width=300, height=260)
        .facet(column=alt.Column("length:N", sort=order, title=None))
    )


def scatter_of(items: Sequence[Configuration], what: str, name: str) -> Any:
    """A score against symbols per token."""
    import altair as alt

    values = [{"configuration": name_of(i), "symbols": i.symbols, "score": i.mean(what)} for i in items]
    return _scatter(
        values,
        alt.X("symbols:Q", scale=alt.Scale(zero=False, padding=20), axis=alt.Axis(title="symbols per token")),
        alt.Y("score:Q", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(title=name)),
    )


def start_end(items: Sequence[Configuration]) -> Any:
    """Bits per byte of the configurations with a new vocabulary that were trained longest, before and after."""
    import altair as alt

    chosen = longest([item for item in items if not item.control])
    values = [{"configuration": name_of(i, without=(TOKENS,)), "start": i.start, "end": i.end} for i in chosen]
    return _scatter(
        values,
        alt.X("start:Q", scale=alt.Scale(zero=False, padding=20), axis=alt.Axis(title="bits per byte before training")),
        alt.Y("end:Q", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(title="after training")),
    )


def _scatter(values: Sequence[Mapping[str, Any]], x: Any, y: Any) -> Any:
    import altair as alt

    base = alt.Chart(alt.Data(values=list(values))).encode(x=x, y=y)
    return alt.layer(
        base.mark_circle(size=80, opacity=0.85),
        base.mark_text(align="left", dx=8, dy=-6, fontSize=9, limit=220).encode(text="configuration:N"),
    ).properties(width=620, height=340)


def axis_titles(items: Sequence[Configuration]) -> list[str]:
    """Return what the axes of configurations are called."""
    return [title(key) for key in items[0].values if key != SEED]
