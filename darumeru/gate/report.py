"""A gate's decision for the terminal, for a pull request, and as files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from darumeru.gate.estimates import DENSITY
from darumeru.gate.policy import SUITE
from darumeru.gate.rules import Decision, Finding, Verdict
from darumeru.leaderboard.load import suite_of
from darumeru.leaderboard.tables import label
from darumeru.web.text import escape_markdown

if TYPE_CHECKING:
    from rich.console import RenderableType

_STYLES = {Verdict.GO: "bold green", Verdict.NO_GO: "bold red", Verdict.INCONCLUSIVE: "bold yellow"}
_SIGNS = {Verdict.GO: "✅", Verdict.NO_GO: "❌", Verdict.INCONCLUSIVE: "❔"}
_SECTIONS = {
    "non_inferiority": "Against baseline",
    "minimum_score": "Score",
    "unfinished": "Unfinished answers",
    "empty": "Empty answers",
    "truncated": "Truncated prompts",
    DENSITY: "Symbols per token",
}
HEAD = ["Estimate", "Interval", "Bound", "p", "Verdict"]


def _named(decision: Decision) -> Iterator[tuple[str | None, str, Finding]]:
    """Yield for each rule the section that it opens (None within one), what it is about in words, and the finding."""
    suite = suite_of([decision.run])
    titles = {SUITE: suite.summary} | {g.name: g.title for g in suite.groups}
    before = None
    for finding in decision.findings:
        kind = finding.rule.kind
        yield None if kind == before else _SECTIONS[kind], titles.get(finding.rule.scope, finding.rule.scope), finding
        before = kind


def note(decision: Decision) -> str:
    """Return what the numbers mean."""
    policy, undecided = decision.policy, any(f.needed for f in decision.findings)
    paired = "Against baseline: run − baseline, paired on the same documents. " if decision.baseline else ""
    power = (
        f" Documents to ask: with {100 * policy.power:g} % power, if the estimate is the truth." if undecided else ""
    )
    return (
        f"{paired}Intervals: 95 %. p: one-sided against the bound, Holm-corrected over {len(decision.findings)} "
        f"rules; a verdict needs p < {policy.alpha:g}.{power}"
    )


def explained(finding: Finding) -> str | None:
    """Return why a rule is undecided, and what would decide it; None where it is decided."""
    if finding.verdict is not Verdict.INCONCLUSIVE:
        return None
    m, needed = finding.measured, finding.needed
    if needed is None or m.value is None:
        return f"cannot be tested: {m.reason}."
    if needed.documents is None:
        return "the estimate lies on the bound, so no number of documents decides; choose another bound."
    toward = Verdict.GO if (m.value < m.limit) == m.at_most else Verdict.NO_GO
    if needed.limit is not None:
        return f"--limit {needed.limit} would show {toward}."
    more = f"{needed.documents - m.documents:,} more documents would show {toward}; the benchmark has "
    if needed.available <= m.documents:
        return f"{more}no more."
    return f"{more}{needed.available - m.documents:,} (asked whole, it shows {toward} with {100 * needed.power:.0f} % power)."


def _cells(finding: Finding) -> list[str]:
    m, signed = finding.measured, finding.rule.kind == "non_inferiority"
    form = "{:+.3f}" if signed else "{:.3f}"
    value = "—" if m.value is None else form.format(m.value)
    bounds = "—" if m.low is None or m.high is None else f"[{form.format(m.low)}, {form.format(m.high)}]"
    p = "—" if finding.p is None else "< 0.001" if finding.p < 0.001 else f"{finding.p:.3f}"
    return [value, bounds, f"{'≤' if m.at_most else '≥'} {form.format(m.limit)}", p, str(finding.verdict)]


def to_terminal(decision: Decision) -> RenderableType:
    """Return the decision for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{decision.verdict}", _STYLES[decision.verdict])
    title.append(
        f"  {label(decision.run)}" + (f" against {label(decision.baseline)}" if decision.baseline else ""), "bold"
    )
    table = Table(
        title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False
    )
    table.add_column("Rule", overflow="fold", min_width=max(map(len, _SECTIONS.values())))
    for name in HEAD:
        table.add_column(name, justify="left" if name == "Verdict" else "right", no_wrap=True)
    remarks = []
    for section, name, finding in _named(decision):
        if section:
            table.add_row(Text(section, "bold cyan"))
        *cells, verdict = _cells(finding)
        table.add_row(Text(f"  {name}"), *cells, Text(verdict, _STYLES[finding.verdict]))
        if text := explained(finding):
            remarks.append(Text(f"{name}, {_SECTIONS[finding.rule.kind].lower()}: {text}", "yellow"))
    return Group(table, *remarks, Text(note(decision), "dim"))


def to_markdown(decision: Decision) -> str:
    """Return the decision for a pull request."""
    e = escape_markdown
    lines = [f"## {_SIGNS[decision.verdict]} {decision.verdict}: {e(label(decision.run))}", ""]
    if decision.baseline:
        lines += [f"Against {e(label(decision.baseline))}.", ""]
    lines += ["| Rule | " + " | ".join(HEAD) + " |", "| :-- |" + " --: |" * (len(HEAD) - 1) + " :-- |"]
    remarks = []
    for section, name, finding in _named(decision):
        if section:
            lines.append(f"| **{section}** |" + " |" * len(HEAD))
        *cells, verdict = _cells(finding)
        lines.append(f"| {e(name)} | " + " | ".join(cells) + f" | {_SIGNS[finding.verdict]} {verdict} |")
        if text := explained(finding):
            remarks.append(f"* {e(name)}, {_SECTIONS[finding.rule.kind].lower()}: {e(text)}")
    return "\n".join([*lines, "", *remarks, *([""] if remarks else []), note(decision)]) + "\n"


def write(decision: Decision, output: Path) -> None:
    """Write gate.md and gate.json into a folder."""
    from darumeru.files import write_json, write_text

    write_text(output / "gate.md", to_markdown(decision))
    write_json(output / "gate.json", decision.to_json())
