"""The tables and sentences of a study's pages, from `study.json` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lep.pipeline.pages import Table, make_table, number
from lep.study.anova import FEWEST


def tables_of(report: Mapping[str, Any]) -> list[Table]:
    """Return what the pages show as tables; those without rows are left out."""
    tables = (_recommended(report), _configurations(report), _vocabulary(report), _effects(report), _anova(report),
              _start_end(report), _costs(report), _findings(report), _stages(report), _cells(report))  # fmt: skip
    return [table for table in tables if table["rows"]]


def _recommended(report: Mapping[str, Any]) -> Table:
    found = {name: r for name, r in report["recommendations"].items() if r is not None}
    rows = [
        [name, r["chosen"], r["best"], f"{r['shared']} of {r['of']}",
         "–" if r["behind"] is None else _interval(r["behind"]), f"{r['symbols']:.2f}",
         f"{r['operations_per_byte'] / 1e6:,.0f} M"]
        for name, r in found.items()
    ]  # fmt: skip
    head = ["among", "take", "lowest bits per byte", "share the first rank", "next, behind the best", "symbols per token",
            "operations a byte"]  # fmt: skip
    spread, control = report["spread"], found["all"]["control"]
    seeds = "Seeds were not repeated, so how much of this is chance of training is not known."
    if spread is not None:
        deviation = f"standard deviation, {_df(spread['df'])}"
        seeds = f"Seeds of one configuration differ by {spread['value']:.4f} bits per byte ({deviation})."
    return make_table(
        "Recommendation", head, rows,
        "Of the configurations that share the first rank, between which this grid cannot tell, the one that reads a byte of "
        "the text with the fewest operations.",
        seeds,
        "Of all, a control is taken, trained in its own vocabulary: at these lengths no new vocabulary has paid in bits per byte "
        "yet; what it saves in operations is in the last column." if control else "", words=(1, 2),
    )  # fmt: skip


def _configurations(report: Mapping[str, Any]) -> Table:
    others = report["texts"][1:]
    has = {key: any(c[key] is not None for c in report["configurations"]) for key in ("copied", "suite")}
    rows = []
    for c in sorted(report["configurations"], key=lambda c: c["end"]):
        control = c["against_control"]
        rows.append(
            [c["name"], str(c["rank"]), str(c["seeds"]), f"{c['start']:.3f}", f"{c['end']:.3f}",
             "best" if c["behind"] is None else _interval(c["behind"]),
             "control" if c["control"] else "–" if control is None else _interval(control) + _mark(control),
             *(f"{c['ends'][name]:.3f} ({c['originals'][name]:.3f})" for name in others),
             f"{c['symbols']:.2f}",
             *(number(c[key], ".3f") for key, there in has.items() if there)]
        )  # fmt: skip
    head = ["configuration", "rank", "seeds", "start", "end", "behind the best", "less its control",
            *(f"{name} (original)" for name in others), "symbols per token",
            *({"copied": "copied", "suite": "benchmark"}[key] for key, there in has.items() if there)]  # fmt: skip
    chance = (
        "documents and seeds" if report["spread"] is not None else "documents alone: seeds were not repeated, so intervals hold "
        "for these trainings, not for others of the same settings"
    )  # fmt: skip
    return make_table(
        "Configurations", head, rows,
        f"Bits per byte of {report['text']}, {report['documents']} held-out documents; lower is better. Start: the initialised "
        "model before training. Differences are paired on the documents, with 95 % intervals; chance of "
        f"{chance}. Ranks are shared by those that cannot be told from the best of their rank (5 % level for the whole table). "
        "Control: the base trained in its own vocabulary with as many tokens; ▲ better, ▼ worse, after Holm's correction.",
    )  # fmt: skip


def _vocabulary(report: Mapping[str, Any]) -> Table:
    seen: dict[tuple[Any, ...], list[str]] = {}
    for c in report["configurations"]:
        key = (c["labels"].get("base"), c["new_tokens"])
        seen[key] = [f"{c['new_tokens']:,}" + (f", {key[0]}" if key[0] else ""), f"{c['original_symbols']:.2f}",
                     f"{c['symbols']:.2f}", f"{c['fertility']:.2f}"]  # fmt: skip
    head = ["new tokens", "symbols per token before", "after", "tokens per word after"]
    rows = [seen[key] for key in sorted(seen, key=lambda k: (str(k[0]), k[1]))]
    return make_table("Vocabularies", head, rows, f"Of the whole text {report['text']}.")


def _effects(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            c["factor"],
            f"{c['level']} − {c['first']}",
            _interval({"value": c["value"], "low": c["low"], "high": c["high"]}),
        ]
        for c in report["contrasts"]
    ]
    return make_table(
        "What each choice changes", ["factor", "levels", "difference in bits per byte"], rows,
        "Cells with a new vocabulary. Differences between levels with all other choices equal; the intervals are wide where the "
        f"other choices change the difference (interaction). None with fewer than {FEWEST} degrees of freedom.",
        words=[1],
    )  # fmt: skip


def _anova(report: Mapping[str, Any]) -> Table:
    a = report["anova"]
    if a is None:
        return make_table("Main effects and interactions", [], [])
    rows = [
        [" × ".join(e["factors"]), str(e["df"]), f"{e['share']:.1%}", number(e["f"], ".2f"), _p(e["p"])]
        for e in sorted(a["effects"], key=lambda e: (len(e["factors"]), -e["squares"]))
    ]
    error = "" if a["variance"] is None else f" Error: {_df(a['df'])}, standard deviation {a['variance'] ** 0.5:.4f}."
    told = (
        ""
        if a["testable"]
        else f" The error is not known well enough to test (fewer than {FEWEST} degrees of freedom)."
    )
    return make_table(
        "Main effects and interactions", ["effect", "df", "share of squares", "F", "p"], rows,
        f"Analysis of variance of {a['count']} cells with a new vocabulary, type II sums of squares, a value for each seed."
        f"{error}{told}",
        "Assumed: effects add up but for two-factor interactions; errors are independent, normal and of one variance. Higher "
        "interactions count as error. p is not corrected for the number of effects; effects that the grid cannot tell from "
        "others are left out.",
    )  # fmt: skip


def _start_end(report: Mapping[str, Any]) -> Table:
    s = report["start_end"]
    if s["value"] is None:
        return make_table("Start against end", [], [])
    interval = "–" if s["low"] is None else f"[{s['low']:+.2f}, {s['high']:+.2f}]"
    return make_table(
        "Start against end", ["Spearman's ρ", "95 % interval", "configurations"],
        [[f"{s['value']:+.2f}", interval, str(s["count"])]],
        "Configurations with a new vocabulary that were trained longest; bits per byte before and after training. 1: the "
        "best start is the best end; 0: the start tells nothing. Interval of Bonett and Wright; configurations are taken as "
        "independent.",
    )  # fmt: skip


def _costs(report: Mapping[str, Any]) -> Table:
    rows = [
        [c["name"], f"{c['cost']['gain']:+.3f}", f"{c['cost']['hours']:.3f}", _tera(c["cost"]["flop"]),
         number(c["cost"]["hours_per_gain"], ".3f"), _tera(c["cost"]["flop_per_gain"]), f"{c['characters']:,.0f}"]
        for c in sorted(report["configurations"], key=lambda c: (c["cost"]["hours_per_gain"] is None,
                                                                 c["cost"]["hours_per_gain"] or 0.0))
    ]  # fmt: skip
    head = [
        "configuration",
        "gain",
        "hours",
        "operations",
        "hours per 0.1 bit",
        "operations per 0.1 bit",
        "characters read",
    ]
    return make_table(
        "Cost of a gain", head, rows,
        "Gain: bits per byte of the untrained original in its own vocabulary, less those after training. Hours of one cell, "
        "training and measuring, as run here (cells beside one another share the cores). – where nothing was gained.",
    )  # fmt: skip


def _findings(report: Mapping[str, Any]) -> Table:
    rows = [[f["claim"], f["verdict"], f["because"], f["rule"], f["source"]] for f in report["findings"]]
    return make_table(
        "Beside the paper", ["finding of Tejaswi, Gupta and Choi", "this grid", "because", "rule", "source"], rows,
        "The paper adapts models such as LLaMA-2-7B with far more text and measures tasks; a small grid may say otherwise "
        "without contradicting it.", words=(1, 2, 3, 4),
    )  # fmt: skip


def _stages(report: Mapping[str, Any]) -> Table:
    rows = [[s["stage"], str(s["distinct"]), str(s["times"]), f"{s['seconds']:,.0f}"] for s in report["stages"]]
    return make_table(
        "Stages", ["stage", "distinct", "made", "seconds"], rows,
        "What cells share is made once. Seconds are those of the processes that finished a stage.",
    )  # fmt: skip


def _cells(report: Mapping[str, Any]) -> Table:
    rows = [[c["name"], c["state"], c["reason"] or "–"] for c in report["cells"] if c["state"] != "done"]
    return make_table("Cells that are not in this report", ["cell", "state", "why"], rows, words=(1, 2))


def _interval(found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    return f"{found['value']:+.3f}" + ("" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]")


def _tera(operations: float | None) -> str:
    return "–" if operations is None else f"{operations / 1e12:,.4g} T"


def _mark(found: Mapping[str, Any]) -> str:
    return "" if found["p_holm"] >= 0.05 else " ▲" if found["value"] < 0 else " ▼"


def _df(count: int) -> str:
    return f"{count} degree{'' if count == 1 else 's'} of freedom"


def _p(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
