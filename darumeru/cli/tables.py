"""Views for the terminal: tables of scores, samples, plans and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from darumeru.evaluation import Plan
    from darumeru.evaluation.several import Outcome
    from darumeru.record.header import Header
    from darumeru.record.run import Run
    from darumeru.record.sample import Sample
    from darumeru.record.scores import Mean, Score, Spread, TaskResult
    from darumeru.task import DarumeruTask
    from darumeru.task.check import Report
    from darumeru.task.suite import Suite


def interval_text(score: Score) -> tuple[str, str]:
    """Return the score and its interval, `0.512` and `[0.471, 0.549]`; a dash where there is none."""
    value = "—" if score.value is None else f"{score.value:.3f}"
    return value, "" if score.low is None else f"[{score.low:.3f}, {score.high:.3f}]"


def scores_table(run: Run) -> RenderableType:
    """Return the scores of a run by group and task."""
    header, scores = run.header, run.scores
    table = Table(title=_title(header), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Task", no_wrap=True)
    table.add_column("Score", justify="right", no_wrap=True)
    table.add_column("95 % interval", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("Measure; notes", overflow="fold")
    for group in header.suite.groups:
        _mean_row(table, scores.groups[group.name], "bold cyan")
        for name in group.tasks:
            if name in scores.failed:
                table.add_row(f"  {name}", Text("failed", "bold red"), "", "", Text(scores.failed[name]))
                continue
            task = scores.tasks[name]
            size = str(task.documents) + ("" if task.units == task.documents else f" in {task.units}")
            about = "; ".join([" + ".join(task.primary), *_notes(task, header), *_without_interval(task.score)])
            table.add_row(f"  {name}", *interval_text(task.score), size, Text(about, "dim"))
        table.add_section()
    _mean_row(table, scores.suite, "bold green")
    return table


def _mean_row(table: Table, score: Mean, style: str) -> None:
    value, bounds = interval_text(score)
    spread = [between_repeats(score.repeats)] if score.repeats else []
    about = Text("; ".join([*spread, *_without_interval(score)]), "dim")
    table.add_row(Text(score.title, style), Text(value, style), Text(bounds, style), "", about)


def between_repeats(spread: Spread) -> str:
    """Return how much a score differs from repeat to repeat, for a note."""
    return f"deviation over {len(spread.values)} repeats: {spread.deviation:.3f}"


def _without_interval(score: Score) -> list[str]:
    """Return why a score has no interval, if it has none."""
    return [f"no interval: {score.reason}"] if score.reason else []


def time_line(run: Run) -> str:
    """Return how long the run took, and how much of it was not the engine's."""
    time = run.scores.time
    if not time:
        return ""
    return f"Time: {time.wall_seconds:.0f} s, {100 * time.not_engine_share:.1f} % of it outside the engine"


def _title(header: Header) -> Text:
    from darumeru.leaderboard.entry import data_title

    engine = header.engine
    dtype = header.environment.get("dtype", engine.dtype)
    how = f"api {engine.base_url}" if engine.base_url else f"{engine.version}, {dtype}"
    exact = ", approximate answers allowed" if engine.approximate else ""
    limit = f", at most {header.limit} documents a task" if header.limit else ""
    drawn = "" if header.how_drawn == "greedy" else f" · {header.how_drawn}"
    drawn += f", {header.repeats} repeats" if header.repeats > 1 else ""
    thought = f", thinking {header.how_thought}" if header.thinking else ""
    return Text(
        f"{header.model.name} · {header.suite.name}, data {data_title(header)} · {header.mode}, {header.num_fewshot}-shot"
        f"{thought} · {how}{drawn}{limit}{exact}"
    )


def _notes(task: TaskResult, header: Header) -> list[str]:
    notes = [between_repeats(task.repeats)] if task.repeats else []
    if task.ties:
        notes.append(f"ties: {task.ties}")
    if task.units == 1:
        notes.append("no interval: all documents are one independent unit")
    if task.repeated_golds:
        notes.append(f"repeated golds: {task.repeated_golds}")
    if task.golds_outside:
        notes.append(f"golds that are no option: {task.golds_outside}")
    if task.truncated_prompts:
        notes.append(f"prompts truncated: {task.truncated_prompts}")
    if task.empty_answers:
        notes.append(f"empty answers: {task.empty_answers}")
    if task.thought_tokens:
        notes.append(f"thought: {task.thought_tokens / task.requests:,.0f} tokens an answer")
    if task.unfinished_thoughts:
        finished = task.finished_score
        alone = f", {interval_text(finished)[0]} on the {task.finished_documents} finished" if finished else ""
        notes.append(f"unfinished thoughts: {task.unfinished_thoughts} of {task.requests}{alone}")
    if task.rethought_answers:
        notes.append(f"thoughts in answers or in thoughts: {task.rethought_answers}")
    if task.cut_answers:
        notes.append(f"answers at the limit: {task.cut_answers}")
    if task.approximate_answers:
        notes.append(f"APPROXIMATE answers: {task.approximate_answers} of {task.requests}")
    if header.num_fewshot and 0 < task.fewshot_used < header.num_fewshot:
        notes.append(f"examples that fitted: {task.fewshot_used:.1f}")
    return notes


def outcomes_table(outcomes: Sequence[Outcome]) -> RenderableType:
    """Return a line for each of several models: its score, and where its record lies or why it has none."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Model", overflow="fold")
    for column in ("Mean", "95 % interval"):
        table.add_column(column, no_wrap=True)
    table.add_column("Record", overflow="fold")
    for outcome in outcomes:
        run = outcome.run
        score, bounds = interval_text(run.scores.suite) if run else ("—", "")
        where = Text(outcome.reason, "red") if outcome.fault else Text(str(run.path) if run else "")
        table.add_row(Text(run.header.model.name if run else outcome.settings.model), score, bounds, where)
    return table


def sample_panel(task: str, sample: Sample) -> RenderableType:
    """Return one sample: prompt, answer, gold and score."""
    from darumeru.record.sample import gold_text

    parts: list[RenderableType] = []
    for number, request in enumerate(sample.requests, start=1):
        suffix = f" {number}" if len(sample.requests) > 1 else ""
        if not request.repeat:  # all repeats have the first one's prompt
            cut = f", {request.truncated} cut" if request.truncated else ""
            size = "" if request.prompt_tokens is None else f" ({request.prompt_tokens} tokens{cut})"
            parts.append(Panel(Text(request.prompt), title=f"prompt{suffix}{size}"))
        answer = request.answer
        if answer.thought_tokens:
            ended = "did not end" if answer.unfinished else "ended"
            parts.append(
                Panel(Text(answer.thought), title=f"thought{suffix} ({len(answer.thought_tokens)} tokens, {ended})")
            )
            parts.append(Text("the answer is empty" if answer.unfinished else request.after_thought))
        if answer.unfinished:
            continue
        if answer.logprobs:
            parts.append(Text("log-probabilities  " + "  ".join(f"{v:.4f}" for v in answer.logprobs)))
        else:
            end = {"stop": "ended by itself", "length": "cut at the limit", "": "unfinished"}[answer.finish]
            size = f" ({len(answer.tokens)} tokens, {end})" if request.prompt_tokens is not None else ""
            parts.append(Panel(Text(answer.text), title=f"answer{suffix}{size}"))
    facts = [("gold", gold_text(sample.gold))]
    if sample.pred is not None:
        facts.append(("chosen", sample.pred or "nothing"))
    facts += [(k, f"{v:.4g}") for k, v in sample.score.items()]
    facts += [(k, str(v)) for k, v in sample.extra.items()]
    grid = Table.grid(padding=(0, 2))
    for key, value in facts:
        grid.add_row(Text(key, "bold"), Text(value))
    return Panel(Group(*parts, grid), title=f"{task}, sample {sample.id}")


def plan_view(plan: Plan) -> RenderableType:
    """Return what would be evaluated, as a table."""
    table = Table(
        title=Text(
            f"{plan.model.name} · {plan.suite.name} · {plan.mode}, {plan.num_fewshot}-shot · engine {plan.engine}"
        ),
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in (
        "Task",
        "Documents",
        "Requests",
        "Prompt tokens",
        "Longest",
        "Answer tokens (at most)",
        "Cut prompts",
    ):
        table.add_column(column, justify="left" if column == "Task" else "right")
    total = [0, 0, 0, 0]
    panels = []
    for name, indices in plan.documents.items():
        requests = [r for r in plan.requests if r.id.rsplit("/", 2)[0] == name]
        tokens = sum(r.prompt_tokens for r in requests)
        most = sum(r.max_tokens + (r.thinking.budget if r.thinking else 0) for r in requests)
        cut = sum(r.truncated > 0 for r in requests)
        table.add_row(
            name, str(len(indices)), str(len(requests)), f"{tokens:,}", str(max(r.prompt_tokens for r in requests)), f"{most:,}",
            str(cut) if cut else "",
        )  # fmt: skip
        total = [a + b for a, b in zip(total, (len(indices), len(requests), tokens, most), strict=True)]
        panels.append(
            Panel(Text(requests[0].text), title=f"{name}: prompt of one sample ({requests[0].prompt_tokens} tokens)")
        )
    for name, reason in plan.missing.items():
        panels.append(Panel(Text(reason, "red"), title=f"{name}: left out"))
    table.add_section()
    table.add_row("All", str(total[0]), str(total[1]), f"{total[2]:,}", "", f"{total[3]:,}", "")
    return Group(*panels, table)


def tasks_table(names: Sequence[str], tasks: Mapping[str, DarumeruTask]) -> RenderableType:
    """Return all tasks with their versions, and whose words their prompts are."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Task", "Version", "Score", "Words of the prompt"):
        table.add_column(column)
    for name in names:
        if name in tasks:
            task = tasks[name]
            words = "task file" if task.worded_here else "rows of the data set"
            table.add_row(name, str(task.VERSION), " + ".join(task.primary), words)
        else:
            table.add_row(name, "", "", "a stock lm-eval task, which 'darumeru run' does not run")
    note = "The words of the built-in task files are this project's own, not those of the reference framework."
    return Group(table, Text(note, "dim"))


def suites_table(suites: Sequence[Suite]) -> Table:
    """Return all suites with their groups and tasks."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Suite", "Group", "Tasks"):
        table.add_column(column)
    for suite in suites:
        for i, group in enumerate(suite.groups):
            table.add_row(suite.name if i == 0 else "", group.title, ", ".join(group.tasks))
        table.add_section()
    return table


def runs_table(runs: Sequence[Run]) -> Table:
    """Return all runs of a folder; a mean is named, as it may be over other tasks than the one below it."""
    from darumeru.leaderboard.entry import data_title

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("Run", no_wrap=True)
    table.add_column("Asked", overflow="fold")
    table.add_column("Mean [95 %]", overflow="fold")
    table.add_column("State", no_wrap=True)
    for run in runs:
        header = run.header
        done = run.complete
        mean = " ".join((header.suite.summary, *interval_text(run.scores.suite))) if done else ""
        asked = f"{header.mode}, {header.num_fewshot}-shot, data {data_title(header)}"
        state = Text("complete", "green") if done else Text("unfinished", "yellow")
        table.add_row(run.path.name, Text(asked), Text(mean.rstrip()), state)
    return table


def check_view(report: Report) -> RenderableType:
    """Return what a bundle holds, what can run on it, and what is wrong with it."""
    table = Table(title=Text(f"Bundle {report.bundle}"), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("Data set", no_wrap=True)
    table.add_column("Rows")
    for dataset, splits in report.datasets.items():
        table.add_row(dataset, ", ".join(f"{split} {rows}" for split, rows in splits.items()))
    parts: list[RenderableType] = [table]
    for suite, tasks in report.suites.items():
        ready = report.ready(suite)
        line = Text(
            f"{suite}: {len(ready)} of {len(tasks)} tasks can run", "green" if len(ready) == len(tasks) else "yellow"
        )
        parts.append(line)
        parts += [Text(f"  {task}: {report.tasks.get(task)}", "dim") for task in tasks if task not in ready]
    if report.unused:
        parts.append(Text(f"No task uses: {', '.join(report.unused)}", "yellow"))
    parts += [Text(str(fault), "red") for fault in report.faults]
    return Group(*parts)


def console(stderr: bool = False) -> Console:
    """Return the terminal."""
    return Console(stderr=stderr, highlight=False)
