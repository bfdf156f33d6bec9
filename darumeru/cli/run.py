"""`darumeru run`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darumeru.cli.terminal import Json, bars, listed, print_json, quiet, say
from darumeru.errors import DarumeruError, UserError
from darumeru.options import with_options
from darumeru.settings import THINKING_BUDGET, Settings, WorkerSettings, settings_of
from darumeru.trackers import find_trackers, tracker_names
from darumeru.trackers import track as track_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from darumeru.trackers.base import Tracker
    from darumeru.workers import Pool


@with_options(WorkerSettings, into="where")
@with_options(Settings, without="model tokenizer training thinking_budget")
def run(
    settings: dict[str, Any],
    where: dict[str, Any],
    model: Annotated[
        list[str] | None, typer.Option(metavar="<str>", help="Model folder, or hub id (repeatable).")
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="YAML list of further models, each with settings of its own if it has any."),
    ] = None,
    thinking_budget: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="Most tokens of a thought; one that is longer counts as an empty answer. Several, with commas between them, "
            f"make one run each. [default: {THINKING_BUDGET}]",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder under which each run gets a folder.")] = Path(
        "runs"
    ),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be evaluated.")] = False,
    until: Annotated[
        str | None,
        typer.Option(metavar="GOAL", help="Stop when a score is known so exactly, e.g. 'micro_avg ± 0.01'."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"Tell a tracker of the finished run: {', '.join(tracker_names())} (comma-separated, or repeated).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate models and write the record of each run; an interrupted run resumes."""
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.evaluation.several import read_models

    trackers = find_trackers(listed(track))
    named = [{"model": name} for name in model or ()] + (read_models(models) if models else [])
    if not named:
        raise UserError("--model is missing: give a model folder or a hub id, or several in a file with --models.")
    each = [settings | budget | one for one in named for budget in _budgets(thinking_budget)]
    if until is None:
        # All are checked before the first is computed.
        checked = [settings_of(**one) for one in each]
        evaluate(
            *checked, output=output, where=WorkerSettings(**where), dry_run=dry_run, as_json=as_json, trackers=trackers
        )
    elif trackers:
        raise UserError("--track tells of whole runs, and --until asks a part: leave out one of them.")
    elif len(each) > 1:
        raise UserError("--until is of one run: give one --model and one --thinking-budget.")
    elif dry_run:
        raise UserError("--dry-run says what a whole run asks; leave out --until.")
    else:
        estimate(each[0], until, output, WorkerSettings(**where), as_json)


def _budgets(text: str | None) -> list[dict[str, int]]:
    """Return the settings of each run: its budget, or none of its own.

    Raises:
        UserError: no whole numbers.
    """
    if text is None:
        return [{}]
    try:
        return [{"thinking_budget": budget} for budget in dict.fromkeys(map(int, text.split(",")))]
    except ValueError:
        raise UserError(
            f"--thinking-budget '{text}' is no number of tokens. Give one, such as 2048, or several with commas: 512,2048,8192."
        ) from None


def estimate(settings: dict[str, Any], until: str, output: Path, where: WorkerSettings, as_json: bool = False) -> None:
    """Ask documents in a random order until a score is known exactly enough, and print it.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was answered is kept.
    """
    from darumeru.cli.tables import console
    from darumeru.evaluation import prepare
    from darumeru.evaluation.several import opened_by
    from darumeru.race import Goal, Reached, run_until
    from darumeru.race.contestants import live
    from darumeru.race.start import settings_for_race

    goal = Goal.of(until)
    with console(stderr=True).status("Building prompts"):
        plan = prepare(settings_for_race(**settings))
    tasks = goal.tasks(plan.suite)
    titles = {"micro_avg": plan.suite.summary} | {g.name: g.title for g in plan.suite.groups}
    title = f"{plan.model.name} on {plan.engine}, until {goal}"
    with (
        workers(where, plan.settings) as pool,
        bars(pool.summary if pool else None) as bar_of,
        live(plan, output, opened_by(pool)) as contestant,
    ):
        bar = bar_of(title)

        def report(reached: Reached) -> None:
            bar(reached.documents, reached.of)

        found = run_until(
            contestant, goal, tasks, title=titles.get(goal.metric, goal.metric), seed=plan.settings.seed, report=report
        )
    if as_json:
        print_json(found.to_json())
        return
    console().print(
        f"{found.title}: {found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}], {100 * (1 - found.alpha):g} % interval that "
        f"holds whenever one looks; {found.documents:,} of {found.of:,} documents asked",
        soft_wrap=True,
    )
    if found.left_out:
        parts = "; ".join(f"{task} without {', '.join(metrics)}" for task, metrics in found.left_out.items())
        console().print(f"Counted with accuracy alone: {parts}.", soft_wrap=True)
    if contestant.run.complete:
        console().print(f"The run was finished before: 'darumeru show {found.run}' has its score.", soft_wrap=True)
    else:
        console().print("Not a run of the whole suite: the same command without --until asks the rest.", soft_wrap=True)
    console().print(f"Record: {found.run}", soft_wrap=True)


def evaluate(
    *each: Settings,
    output: Path,
    where: WorkerSettings | None = None,
    dry_run: bool = False,
    as_json: bool = False,
    trackers: Mapping[str, Tracker] = {},
) -> None:
    """Evaluate models, or one in several ways, print the scores and tell trackers of each finished run.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed, or tasks of it did; what was computed is kept.
    """
    from darumeru.cli.tables import console, outcomes_table, scores_table, time_line
    from darumeru.evaluation.several import evaluate_each

    if dry_run:
        show_plans(each)
        return
    outcomes = []
    with workers(where, *each) as pool, bars(pool.summary if pool else None) as bar_of:
        for outcome in evaluate_each(each, output, lambda plan: bar_of(f"{plan.model.name} on {plan.engine}"), pool):
            outcomes.append(outcome)
            if len(each) > 1:
                say(outcome.line)
            if outcome.run:
                for name, place in track_run(outcome.run, trackers, say).items():
                    say(f"Tracked by {name}: {place}")
    outcomes.sort(key=lambda o: each.index(o.settings))
    if as_json:
        told = [o.to_json() for o in outcomes]
        if len(each) > 1:
            print_json(told)
        elif outcomes[0].run:
            print_json(told[0])
    else:
        for done in [o.run for o in outcomes if o.run]:
            console().print(scores_table(done))
            console().print(time_line(done))
            console().print(f"Record: {done.path}", soft_wrap=True)
        if len(each) > 1:
            console().print(outcomes_table(outcomes))
    failed = [o for o in outcomes if o.fault]
    if failed and failed[0].fault and len(each) == 1:
        raise failed[0].fault
    if failed:
        reasons = "; ".join(f"{o.settings.model}: {o.reason}" for o in failed)
        raise DarumeruError(f"{len(failed)} of {len(each)} runs failed. {reasons}")


def show_plans(each: Sequence[Settings]) -> None:
    """Print what would be evaluated.

    Raises:
        DarumeruError: a task cannot be evaluated.
    """
    from darumeru.cli.tables import console, plan_view
    from darumeru.evaluation import prepare

    for settings in each:
        with console(stderr=True).status("Building prompts"):
            plan = prepare(settings)
        console().print(plan_view(plan))
        if plan.missing:
            raise DarumeruError(f"{', '.join(plan.missing)} cannot be evaluated.")


@contextmanager
def workers(where: WorkerSettings | None, *each: Settings) -> Iterator[Pool | None]:
    """Give the workers that answer; None where this process does.

    Raises:
        UserError: there cannot be such workers.
    """
    if where is None or not where.apart:
        yield None
        return
    from darumeru.cli.tables import console
    from darumeru.workers import open_pool

    with ExitStack() as stack:
        with console(stderr=True).status("Starting workers"):
            pool = stack.enter_context(open_pool(where, gpus=any(s.device != "cpu" for s in each)))
        yield pool
