"""`darumeru run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darumeru.cli.terminal import Json, listed, print_json, progress, quiet, say
from darumeru.errors import DarumeruError, UserError
from darumeru.options import with_options
from darumeru.settings import THINKING_BUDGET, Settings, settings_of
from darumeru.trackers import find_trackers, tracker_names
from darumeru.trackers import track as track_run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from darumeru.record.run import Run
    from darumeru.trackers.base import Tracker


@with_options(Settings, without="tokenizer training thinking_budget")
def run(
    settings: dict[str, Any],
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
    """Evaluate a model and write the record of the run; an interrupted run resumes."""
    trackers = find_trackers(listed(track))
    each = [settings | more for more in _budgets(thinking_budget)]
    if until is None:
        # All are checked before the first is computed.
        evaluate(
            *[settings_of(**one) for one in each], output=output, dry_run=dry_run, as_json=as_json, trackers=trackers
        )
    elif trackers:
        raise UserError("--track tells of whole runs, and --until asks a part: leave out one of them.")
    elif len(each) > 1:
        raise UserError("--until is of one run: give one --thinking-budget.")
    elif dry_run:
        raise UserError("--dry-run says what a whole run asks; leave out --until.")
    else:
        estimate(each[0], until, output, as_json)


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


def estimate(settings: dict[str, Any], until: str, output: Path, as_json: bool = False) -> None:
    """Ask documents in a random order until a score is known exactly enough, and print it.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was answered is kept.
    """
    from darumeru.cli.tables import console
    from darumeru.evaluation import prepare
    from darumeru.race import Goal, Reached, run_until
    from darumeru.race.contestants import live
    from darumeru.race.start import settings_for_race

    quiet()
    goal = Goal.of(until)
    with console(stderr=True).status("Building prompts"):
        plan = prepare(settings_for_race(**settings))
    tasks = goal.tasks(plan.suite)
    titles = {"micro_avg": plan.suite.summary} | {g.name: g.title for g in plan.suite.groups}
    with progress(f"{plan.model.name} on {plan.engine}, until {goal}") as bar, live(plan, output) as contestant:

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
    dry_run: bool = False,
    as_json: bool = False,
    trackers: Mapping[str, Tracker] = {},
) -> None:
    """Evaluate a model, once for each of some settings, print its scores and tell trackers of them.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed, or tasks of it did; what was computed is kept.
    """
    quiet()  # before the libraries are imported, which ask then whether they may speak
    from darumeru.cli.tables import console, plan_view, scores_table, time_line
    from darumeru.evaluation import execute, prepare

    finished: list[Run] = []
    for settings in each:
        with console(stderr=True).status("Building prompts"):
            plan = prepare(settings)
        if dry_run:
            console().print(plan_view(plan))
            if plan.missing:
                raise DarumeruError(f"The data of {', '.join(plan.missing)} cannot be had.")
            continue
        with progress(f"{plan.model.name} on {plan.engine}") as report:
            done = execute(plan, output, report)
        finished.append(done)
        if not as_json:
            console().print(scores_table(done))
            console().print(time_line(done))
            console().print(f"Record: {done.path}", soft_wrap=True)
        for name, place in track_run(done, trackers, say).items():
            say(f"Tracked by {name}: {place}")
    if as_json and not dry_run:
        told = [{"run": str(done.path), **done.scores.to_json()} for done in finished]
        print_json(told if len(each) > 1 else told[0])
    for done in finished:
        if failed := done.scores.failed:
            raise DarumeruError(
                f"{len(failed)} of {len(done.tasks)} tasks failed ({', '.join(failed)}), so the suite has no mean. "
                "Start the same command again to compute what is missing."
            )
