"""Views of an arena: tables in the terminal, report.md, and a page with the answers side by side."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.arena.prompts import Prompt
from darumeru.arena.record import Arena
from darumeru.files import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

WEB = Path(__file__).parent / "web"
SHOWN = 300
"""Prompts whose answers the page shows; all are in the files beside it."""

HEAD = ["rank", "model", "Elo", "95 %", "win rate", "95 %", "W–T–L", "mean pref.", "tokens", "at limit"]
PAIR_HEAD = ["A", "B", "A's win rate", "95 %", "W–T–L", "not judged", "p (Holm)"]
NOTE = (
    "Win rate: wins and half the ties, of what was judged. Elo: Bradley-Terry, 400 points are odds of 10 to 1, the mean is 1000; "
    "models share a rank where they cannot be told apart. Mean pref.: the judge's mean probability, both orders, decided or not."
)


def _bounds(score: dict[str, Any], digits: int) -> tuple[str, str]:
    if score["value"] is None:
        return "—", ""
    return f"{score['value']:.{digits}f}", f"[{score['low']:.{digits}f}, {score['high']:.{digits}f}]"


def _record(row: dict[str, Any]) -> str:
    return f"{row['wins']}–{row['ties']}–{row['losses']}"


def model_cells(row: dict[str, Any]) -> list[str]:
    """Return a model's row under `HEAD`."""
    facts = row["answers"]
    tokens = facts["tokens_mean"]
    return [
        "—" if row["rank"] is None else str(row["rank"]), row["name"], *_bounds(row["elo"], 0), *_bounds(row["win_rate"], 2),
        _record(row), "—" if row["preference"] is None else f"{row['preference']:.2f}",
        "—" if tokens is None else f"{tokens:.0f}", f"{facts['at_limit']} of {facts['count']}",
    ]  # fmt: skip


def pair_cells(row: dict[str, Any]) -> list[str]:
    """Return a pair's row under `PAIR_HEAD`."""
    p = row["p_holm"]
    return [
        row["a"], row["b"], *_bounds(row["win_rate"], 2), _record(row), str(row["unjudged"]),
        "< 0.001" if p < 0.001 else f"{p:.3f}",
    ]  # fmt: skip


def judge_lines(scores: dict[str, Any]) -> list[str]:
    """Return what the judge is worth, in sentences."""
    judge, length, counts = scores["judge"], scores["length"], scores["verdicts"]
    lines = [
        f"Verdicts: {counts['all']}; both orders agreed on {counts['agreed']}, disagreed on {counts['disagreed']} (ties); "
        f"equal answers {counts['same answer']} (ties); not judged {counts['unjudged']}."
    ]
    if judge:
        value, bounds = _bounds(judge["consistency"], 2)
        bias, around = _bounds(judge["bias"], 2)
        kappa = "—" if judge["kappa"] is None else f"{judge['kappa']:.2f}"
        lines.append(
            f"Judge: consistency {value} {bounds}, {judge['expected']:.2f} by chance, kappa {kappa}; chose the first place "
            f"{judge['first']:.0%}, the second {judge['second']:.0%}, neither {judge['tie']:.0%}; position bias {bias} {around}."
        )
    if length["decided"]:
        value, bounds = _bounds(length["share"], 2)
        lines.append(
            f"Length: the longer answer won {length['longer_won']} of {length['decided']} decided pairs, {value} {bounds}."
        )
    return lines


def to_terminal(arena: Arena) -> RenderableType:
    """Return the arena for the terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    header, scores = arena.header, arena.scores
    title = Text(f"Judge {header['judge']['name']} · {scores['prompts']} prompts · rubric {header['lang']}")

    def table(head: list[str], rows: list[list[str]], left: int, **more: Any) -> Table:
        grid = Table(title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False, **more)
        for i, name in enumerate(head):
            fold = i == left or (head is PAIR_HEAD and i == 0)
            grid.add_column(name, justify="left" if fold else "right", no_wrap=not fold, overflow="fold")
        for row in rows:
            grid.add_row(*map(Text, row))
        return grid

    # What fits into 80 columns; Markdown, JSON and the page have the rest.
    kept = [i for i, name in enumerate(HEAD) if name not in ("mean pref.", "at limit")]
    rows = [[model_cells(row)[i] for i in kept] for row in scores["models"]]
    parts: list[RenderableType] = [table([HEAD[i] for i in kept], rows, 1, title=title)]
    if len(scores["pairs"]) > 1:
        parts.append(table(PAIR_HEAD, [pair_cells(p) for p in scores["pairs"]], 1))
    parts += [Text(line) for line in judge_lines(scores)]
    parts += [
        Text(r, "bold red" if i == 0 and r.startswith("DO NOT") else "yellow") for i, r in enumerate(scores["remarks"])
    ]
    return Group(*parts, Text(NOTE, "dim"))


def to_markdown(arena: Arena) -> str:
    """Return the arena as Markdown."""
    from darumeru.web.text import escape_markdown as e

    header, scores = arena.header, arena.scores
    lines = [f"Judge: {e(header['judge']['name'])}; {scores['prompts']} prompts; rubric {header['lang']}.\n"]
    for head, rows, left in (
        (HEAD, [model_cells(r) for r in scores["models"]], (1,)),
        (PAIR_HEAD, [pair_cells(r) for r in scores["pairs"]], (0, 1)),
    ):
        lines += [
            "| " + " | ".join(head) + " |",
            "|" + "|".join(" :-- " if i in left else " --: " for i in range(len(head))) + "|",
            *("| " + " | ".join(e(c) for c in row) + " |" for row in rows),
            "",
        ]
    notes = [*scores["remarks"], *judge_lines(scores)]
    return "\n".join([*lines, *(f"* {e(n)}" for n in notes), "", NOTE]) + "\n"


def write_views(arena: Arena) -> None:
    """report.md and index.html with its assets, from what the folder holds."""
    from darumeru.web.pages import render_page, write_assets

    header, scores, names = arena.header, arena.scores, arena.names
    shutil.rmtree(arena.path / "assets", ignore_errors=True)
    write_assets(arena.path / "assets")
    answers = {name: {row["prompt"]: row for row in arena.answers(name)} for name in names}
    verdicts: dict[int, list[dict[str, Any]]] = {}
    for row in arena.verdicts():
        verdicts.setdefault(row["prompt"], []).append(row)
    prompts = [
        {
            "id": row["id"],
            "text": Prompt(row["id"], tuple(row["messages"])).text,
            "answers": [(name, answers[name].get(row["prompt"])) for name in names],
            "verdicts": verdicts.get(row["prompt"], []),
        }
        for row in list(arena.prompts())[:SHOWN]
    ]
    page = render_page(
        WEB, "arena.html.j2", root=".", home=None, header=header, scores=scores, names=names, prompts=prompts, head=HEAD,
        pair_head=PAIR_HEAD, rows=[model_cells(r) for r in scores["models"]],
        pairs=[pair_cells(r) for r in scores["pairs"]], lines=judge_lines(scores), note=NOTE,
    )  # fmt: skip
    write_text(arena.path / "index.html", page)
    write_text(arena.path / "report.md", to_markdown(arena))
