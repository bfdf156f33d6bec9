"""The board as text: Markdown, LaTeX; and a run as a model card's results and a README's badge."""

from __future__ import annotations

import re
from urllib.parse import quote

from darumeru.leaderboard.board import Board, Row
from darumeru.leaderboard.entry import Bounded, Entry, data_title
from darumeru.leaderboard.pools import IMPORTED_POOL, INCOMPLETE_POOL, PUBLISHED_POOL
from darumeru.leaderboard.published import OLDER_LCS
from darumeru.leaderboard.thinking import thinking_title
from darumeru.record.draws import first_split
from darumeru.record.header import GroupFacts, Header
from darumeru.record.run import Run
from darumeru.record.scores import Score
from darumeru.web.text import escape_latex, escape_markdown

POOL_NOTES = {
    "runs": "Runs on the same documents ({title}); ranks hold within this table.",
    PUBLISHED_POOL: "Published in the paper ({title}); reference values without intervals, not ranked. "
    f"{OLDER_LCS}, the share of the answer that is in the source: a copy cut short scored 1.",
    INCOMPLETE_POOL: "Incomplete runs; never ranked; groups only where all their tasks were run.",
}


def number(score: Bounded | None) -> str:
    """`0.512`; a dash where there is none."""
    return "—" if score is None else f"{score[0]:.3f}"


def with_bounds(score: Bounded | None) -> str:
    """`0.512 [0.471, 0.549]`; without bounds where there are none."""
    if score is None or score[1] is None or score[2] is None:
        return number(score)
    return f"{score[0]:.3f} [{score[1]:.3f}, {score[2]:.3f}]"


def setting(entry: Entry) -> str:
    """`zero-shot`, `5-shot, approximate`, `zero-shot, thinking on, budget 2,048`."""
    shots = "zero-shot" if entry.num_fewshot == 0 else f"{entry.num_fewshot}-shot"
    thinking = thinking_title(entry.header) if entry.header else ""
    return ", ".join(filter(None, (shots, thinking, "approximate" if entry.approximate else "")))


def label(entry: Entry) -> str:
    """Return the model's name with vocabulary and method where they are known."""
    about = ", ".join(filter(None, (entry.vocab, entry.method)))
    return f"{entry.name} ({about})" if about else entry.name


def to_markdown(board: Board) -> str:
    """Return a table a section, with what each section means."""
    parts = [f"# {escape_markdown(board.title)}\n"]
    groups = board.suite.groups
    head = ["Rank", "Model", "Setting", f"{board.suite.summary} [95 %]", *(g.title for g in groups), "Sym/tok RU"]
    for pool in (p for p in board.pools if p.id != IMPORTED_POOL):
        note = POOL_NOTES[pool.kind].format(title=escape_markdown(pool.title))
        parts += [f"\n{note}\n", "| " + " | ".join(head) + " |"]
        parts.append("| --: | :-- | :-- | :-- |" + " --: |" * (len(groups) + 1))
        for row in (r for r in board.rows if r.pool == pool.id):
            e = row.entry
            whole = e.scores.get("suite")
            summary = with_bounds(whole) if whole else f"{row.covered}/{len(board.tasks)} tasks"
            symbols = e.symbols_per_token[0]
            cells = [str(row.rank or "—"), escape_markdown(label(e)), setting(e), summary]
            cells += [number(e.scores.get(g.name)) for g in groups]
            parts.append("| " + " | ".join([*cells, f"{symbols:.2f}" if symbols else "—"]) + " |")
    parts.append(
        "\nModels that share a rank cannot be told apart from the best of it (paired bootstrap over samples, corrected for the "
        "number of models, 5 % level). Where runs differ in more than the model, `table.csv` says in `badges` how.\n"
    )
    parts += _imported_table(board)
    parts += _cost_table(board)
    if board.problems:
        parts.append("Not shown:\n")
        parts += [f"* {escape_markdown(p.name)}: {escape_markdown(p.reason)}" for p in board.problems]
    return "\n".join(parts) + "\n"


def _imported_table(board: Board) -> list[str]:
    """Return the tasks of other tools' results that are not the suite's; nothing where there are none."""
    if not board.imported:
        return []
    head = ["Model", "Setting", "Imported from", *(escape_markdown(task) for task in board.other_tasks)]
    parts = [
        "Tasks of other tools' results that are not the suite's, each with its 95 % interval; not ranked.\n",
        "| " + " | ".join(head) + " |",
        "| :-- | :-- | :-- |" + " --: |" * len(board.other_tasks),
    ]
    for row in board.imported:
        e = row.entry
        scores = [with_bounds(e.scores.get(task)) for task in board.other_tasks]
        parts.append(
            "| " + " | ".join([escape_markdown(label(e)), setting(e), escape_markdown(e.tool), *scores]) + " |"
        )
    return [*parts, ""]


def _cost_table(board: Board) -> list[str]:
    """Return what the answers of models that can think cost; nothing where there are none."""
    rows = [(r.entry, r.entry.spent) for r in board.rows if r.entry.thinks]
    if not rows:
        return []
    head = [
        "Model", "Setting", board.suite.summary, "on finished answers", "unfinished thoughts", "tokens a document",
        "of these in thoughts", "seconds a document",
    ]  # fmt: skip
    parts = ["What thinking costs:\n", "| " + " | ".join(head) + " |", "| :-- | :-- |" + " --: |" * (len(head) - 2)]
    for entry, spent in rows:
        cells = [escape_markdown(label(entry)), setting(entry), number(entry.scores.get("suite"))]
        if spent is not None:
            finished = spent.finished.get("suite")
            cells += [
                "—" if finished is None else f"{finished:.3f}", f"{spent.unfinished:.1%}", f"{spent.tokens:,.1f}",
                f"{spent.thought:,.1f}", "—" if spent.seconds is None else f"{spent.seconds:.2f}",
            ]  # fmt: skip
        parts.append("| " + " | ".join(cells) + " |")
    return [*parts, ""]


def to_latex(board: Board) -> str:
    """Return the table in LaTeX with booktabs (`\\usepackage{booktabs}`)."""
    groups = board.suite.groups
    head = ["Rank", "Model", "Setting", board.suite.summary, *(g.title for g in groups)]
    lines = [
        r"\begin{tabular}{rllc" + "c" * len(groups) + "}", r"\toprule", " & ".join(map(escape_latex, head)) + r" \\",
    ]  # fmt: skip
    for pool in board.pools:
        if pool.kind in ("incomplete", "imported"):
            continue
        title = {"runs": "Runs on {title}", "published": "Published, {title}"}[pool.kind].format(title=pool.title)
        lines += [r"\midrule", rf"\multicolumn{{{len(head)}}}{{l}}{{\textit{{{escape_latex(title)}}}}} \\"]
        for row in (r for r in board.rows if r.pool == pool.id):
            lines.append(" & ".join(_latex_cells(row, groups)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_cells(row: Row, groups: list[GroupFacts]) -> list[str]:
    e = row.entry
    mean = e.scores.get("suite")
    bounded = mean is not None and mean.low is not None and mean.high is not None
    bounds = rf" {{\scriptsize [{mean.low:.3f}, {mean.high:.3f}]}}" if mean and bounded else ""
    scores = [number(s).replace("—", "--") for s in (mean, *(e.scores.get(g.name) for g in groups))]
    return [str(row.rank or "--"), escape_latex(label(e)), setting(e), f"{scores[0]}{bounds}", *scores[1:]]


# -- one run ----------------------------------------------------------------------------------------------------------


def model_index(run: Run, name: str | None = None) -> str:
    """Return the run as `model-index` YAML for a model card's metadata, through huggingface_hub's own classes.

    Raises:
        UserError: the run has no scores yet.
    """
    from huggingface_hub import EvalResult, ModelCardData

    header, scores = run.header, run.scores
    model = name or header.model.name
    thinking = {"thinking": header.how_thought} if header.thinking else {}
    results = []
    for task, result in scores.tasks.items():
        split, source = first_split(header.tasks[task].data)
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=re.sub(r"[^\w./-]+", "-", str(source.get("source", "unknown")).partition(":")[2])
                or "unknown",
                dataset_name=f"Darumeru {task}",
                dataset_config=task,
                dataset_split=split,
                dataset_revision=source.get("revision"),
                metric_type="+".join(result.primary),
                metric_name=f"mean of {' and '.join(result.primary)}" if len(result.primary) > 1 else result.primary[0],
                metric_value=None if result.score.value is None else round(result.score.value, 6),
                metric_args={
                    "num_fewshot": header.num_fewshot,
                    **thinking,
                    **({"approximate_answers": result.approximate_answers} if result.approximate_answers else {}),
                    "mode": header.mode,
                    "documents": result.documents,
                    "low_95": result.score.low,
                    "high_95": result.score.high,
                },
            )
        )
    suite = scores.suite
    if suite.value is not None:
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=header.suite.name,
                dataset_name=f"Darumeru on {data_title(header)}",
                metric_type="micro_avg" if suite.title == "Micro-Avg" else "mean",
                metric_name=suite.title,
                metric_value=round(suite.value, 6),
                metric_args={
                    "low_95": suite.low,
                    "high_95": suite.high,
                    "num_fewshot": header.num_fewshot,
                    **thinking,
                    **({"approximate": True} if scores.approximate else {}),
                },
            )
        )
    return str(ModelCardData(model_name=model, eval_results=results).to_yaml()) + "\n"


def shots(header: Header) -> str:
    """`zero-shot`, `5-shot, thinking off`."""
    count = "zero-shot" if header.num_fewshot == 0 else f"{header.num_fewshot}-shot"
    return f"{count}, {title}" if (title := thinking_title(header)) else count


def how_asked(run: Run, name: str | None = None) -> str:
    """`model, instruct, zero-shot, data: mini`, and what else a reader of its numbers must know."""
    header = run.header
    limit = f", at most {header.limit} documents a task" if header.limit else ""
    inexact = f", approximate answers in {', '.join(tasks)}" if (tasks := run.scores.approximate) else ""
    return f"{name or header.model.name}, {header.mode}, {shots(header)}, data: {data_title(header)}{limit}{inexact}"


def badge(run: Run, model: str | None = None) -> str:
    """Return a Markdown badge with the run's mean; the image is drawn by shields.io when the README is shown.

    The model is named where the image is not seen: the README is its own.
    """
    suite = run.scores.suite
    value = "incomplete" if suite.value is None else f"{suite.value:.3f}"
    name = f"Darumeru {suite.title}, {data_title(run.header)}" + (", approximate" if run.scores.approximate else "")

    def part(text: str) -> str:
        return quote(text.replace("-", "--").replace("_", "__"), safe="")

    text = f"{model or run.header.model.name}, {name}: {value}"
    return f"![{escape_markdown(text)}](https://img.shields.io/badge/{part(name)}-{part(value)}-b3392b)\n"


def run_markdown(run: Run, name: str | None = None) -> str:
    """Return the scores of a run as a Markdown table."""
    header, scores = run.header, run.scores
    lines = [
        f"{escape_markdown(how_asked(run, name))}\n",
        "| Task | Score | 95 % interval | n |", "| :-- | --: | :-- | --: |",
    ]  # fmt: skip

    def line(name: str, score: Score, n: str) -> str:
        value = "—" if score.value is None else f"{score.value:.3f}"
        bounds = "" if score.low is None else f"{score.low:.3f} – {score.high:.3f}"
        return f"| {name} | {value} | {bounds} | {n} |"

    for group in header.suite.groups:
        lines.append(line(f"**{escape_markdown(group.title)}**", scores.groups[group.name], ""))
        for task in group.tasks:
            if task in scores.tasks:
                result = scores.tasks[task]
                lines.append(line(escape_markdown(task), result.score, str(result.documents)))
    return "\n".join([*lines, line(f"**{escape_markdown(scores.suite.title)}**", scores.suite, "")]) + "\n"


def run_latex(run: Run, name: str | None = None) -> str:
    """Return the scores of a run in LaTeX with booktabs."""
    header, scores = run.header, run.scores
    lines = [
        r"\begin{tabular}{lcc}", r"\toprule", rf"\multicolumn{{3}}{{l}}{{\textit{{{escape_latex(how_asked(run, name))}}}}} \\",
        r"\midrule", r"Task & Score & 95\,\% interval \\",
    ]  # fmt: skip

    def line(name: str, score: Score) -> str:
        value = "--" if score.value is None else f"{score.value:.3f}"
        bounds = "--" if score.low is None else f"{score.low:.3f}--{score.high:.3f}"
        return rf"{name} & {value} & {bounds} \\"

    for group in header.suite.groups:
        lines += [r"\midrule", line(rf"\textbf{{{escape_latex(group.title)}}}", scores.groups[group.name])]
        lines += [line(escape_latex(t), scores.tasks[t].score) for t in group.tasks if t in scores.tasks]
    lines += [r"\midrule", line(rf"\textbf{{{escape_latex(scores.suite.title)}}}", scores.suite)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
