"""A signal study for the terminal, as text and as files; the chosen part as a suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.signal.measure import Measure, Summary
from darumeru.signal.study import Study
from darumeru.signal.subset import Subset
from darumeru.web.text import escape_markdown

if TYPE_CHECKING:
    from rich.console import RenderableType

HEAD = ["Signal", "Noise", "Ratio", "Decision accuracy", "Docs", "Tokens", "Seconds"]


def _cells(m: Measure) -> list[str]:
    noise = "—" if m.noise is None else f"{m.noise:.3f}"
    ratio = "—" if m.ratio is None else f"{m.ratio:.1f}"
    seconds = "—" if m.seconds is None else f"{m.seconds:,.0f}"
    accuracy = f"{m.accuracy:.2f} ± {m.accuracy_error:.2f}"
    return [f"{m.signal:.3f}", noise, ratio, accuracy, f"{m.documents:,}", f"{m.tokens:,.0f}", seconds]


def notes(study: Study, summary: Summary) -> list[str]:
    """Return what the numbers mean and how far they can be trusted."""
    noise = (
        f"of the documents' choice, and between neighbouring checkpoints ({summary.checkpoints} of the runs)"
        if summary.checkpoints
        else "of the documents' choice (no training with three checkpoints)"
    )
    counted = [t for t in study.tasks if t not in study.counted]
    apart = f"; not part of the suite's score: {', '.join(counted)}" if counted else ""
    return [
        f"Signal: largest minus smallest score of {len(study.entries)} runs. Noise: {noise}. Decision accuracy: share of pairs "
        f"of runs ordered as by the mean of the {len(study.counted)} tasks that count{apart}; 0.5 is chance; ± standard error.",
        f"The mean itself tells {summary.told_apart} of {summary.pairs} pairs apart (paired, Holm-corrected, 5 % level). "
        + (
            "What the tasks are held against is well known."
            if _known(summary)
            else "The order of most pairs is not known, so decision accuracy tells little: take more documents, or other models."
        ),
    ]


def _known(summary: Summary) -> bool:
    """Return whether the order of most pairs of runs is known."""
    return 2 * summary.told_apart >= summary.pairs


def subset_notes(subset: Subset, study: Study, summary: Summary) -> list[str]:
    """Return what was chosen and how sure that is."""
    chosen, uniform = subset.chosen, subset.uniform
    names = ", ".join(
        f"{task} {limit}" + ("" if limit < study.documents(task) else " (all)") for task, limit in chosen.limits.items()
    )
    count = len(subset.left_out)
    left_out = f"{count} runs" if count == len(study.entries) else f"{count} trainings and single runs"
    verdict = "These runs do not show that the choice is better than the one limit."
    if subset.better:
        verdict = "The choice is better than the one limit."
        if not _known(summary):
            verdict = "The choice repeats the suite's order better, but that order is mostly noise of the documents they share."
    return [
        f"Chosen for {subset.budget:,} of {subset.whole:,.0f} tokens: {names}: {chosen.tokens:,.0f} tokens.",
        f"Decision accuracy on these runs {chosen.accuracy:.2f}; on runs left out of the choice {subset.accuracy:.2f} ± "
        f"{subset.error:.2f} ({left_out}, one at a time). All {len(uniform.limits)} tasks with --limit "
        f"{max(uniform.limits.values())} ({uniform.tokens:,.0f} tokens): {subset.uniform_accuracy:.2f}. {verdict}",
    ]


def to_terminal(study: Study, summary: Summary, subset: Subset | None) -> RenderableType:
    """Return the study for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{study.suite.name}: {len(study.entries)} runs", "bold")
    table = Table(
        title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False
    )
    table.add_column("Task", overflow="fold")
    for name in HEAD:
        table.add_column(name, justify="right", no_wrap=name != "Decision accuracy")
    for m in _ordered(summary):
        table.add_row(Text(m.task, "" if m.counts else "dim"), *_cells(m))
    table.add_section()
    table.add_row(Text(summary.suite.task, "bold green"), *_cells(summary.suite))
    lines = [Text(line, "dim") for line in notes(study, summary)]
    if subset:
        lines += [Text(line) for line in subset_notes(subset, study, summary)]
    return Group(table, *lines)


def _ordered(summary: Summary) -> list[Measure]:
    return sorted(summary.tasks, key=lambda m: -m.accuracy)


def to_markdown(study: Study, summary: Summary, subset: Subset | None) -> str:
    """Return the study as Markdown."""
    e = escape_markdown
    lines = ["| Task | " + " | ".join(HEAD) + " |", "| :-- |" + " --: |" * len(HEAD)]
    lines += [f"| {e(m.task)} | " + " | ".join(_cells(m)) + " |" for m in _ordered(summary)]
    lines.append(f"| **{e(summary.suite.task)}** | " + " | ".join(_cells(summary.suite)) + " |")
    told = [*notes(study, summary), *(subset_notes(subset, study, summary) if subset else [])]
    return "\n".join([*lines, *(f"\n{e(line)}" for line in told)]) + "\n"


def to_json(study: Study, summary: Summary, subset: Subset | None) -> dict[str, Any]:
    """Return the study as a JSON object."""
    return {
        "suite": study.suite.name,
        "runs": [{"name": entry.name, "id": entry.id} for entry in study.entries],
        "counted": study.counted,
        "tasks": [m.to_json() for m in summary.tasks],
        "whole": summary.suite.to_json(),
        "pairs": summary.pairs,
        "told_apart": summary.told_apart,
        "subset": subset.to_json() if subset else None,
    }


def suite_name(study: Study) -> str:
    """Return the name of the suite that a choice becomes."""
    return f"{study.suite.name}-selected"


def suite_yaml(study: Study, subset: Subset) -> str:
    """Return the chosen part as an lm-eval group file, for `--suite NAME --include-path FOLDER`."""
    import yaml

    limits = subset.chosen.limits
    groups = []
    for group in study.suite.groups:
        if tasks := [t for t in group.tasks if t in limits]:
            title = (
                group.title if len(tasks) == len(group.tasks) else f"{group.title}, {len(tasks)} of {len(group.tasks)}"
            )
            groups.append({"group": group.name, "group_alias": title, "task": tasks})
    content = {
        "group": suite_name(study),
        "group_alias": f"Mean of {len(limits)} tasks",
        "task": groups,
        "metadata": {
            "version": "1.0",
            "limits": {t: n for t, n in limits.items() if n < study.available(t)},
        },
    }
    head = (
        f"# Made by `darumeru signal` from {len(study.entries)} runs: {subset.chosen.tokens:,.0f} of {subset.whole:,.0f} "
        "tokens.\n"
        f"# Pairs of runs left out of the choice that it orders as the whole suite does: {subset.accuracy:.2f} "
        f"± {subset.error:.2f};\n# all tasks with one limit for the same tokens: {subset.uniform_accuracy:.2f}.\n"
    )
    return head + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=120)


def write(study: Study, summary: Summary, subset: Subset | None, output: Path) -> list[str]:
    """Write signal.json, signal.md, the picture and, where one was chosen, the suite; return the files' names.

    Raises:
        UserError: a package of the extra `leaderboard` is missing.
    """
    from darumeru.extras import need
    from darumeru.files import replacing, write_json, write_text

    need("altair", "vl_convert", extra="leaderboard")
    from darumeru.leaderboard.figures import render
    from darumeru.signal.figure import specification

    svg, png = render(specification(summary))
    write_text(output / "signal.svg", svg)
    with replacing(output / "signal.png") as file:
        file.write(png)
    write_text(output / "signal.md", to_markdown(study, summary, subset))
    write_json(output / "signal.json", to_json(study, summary, subset))
    names: Sequence[str] = ["signal.json", "signal.md", "signal.svg", "signal.png"]
    if subset:
        write_text(output / f"{suite_name(study)}.yaml", suite_yaml(study, subset))
        names = [*names, f"{suite_name(study)}.yaml"]
    return list(names)
