"""`darumeru list`, `show` and `rescore`: what is in run records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darumeru.cli.terminal import Json, print_json
from darumeru.errors import DarumeruError, UserError, unknown


def list_(
    what: Annotated[str, typer.Argument(help="tasks, suites or runs.")],
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks and suites.")] = None,
) -> None:
    """List tasks, suites or runs."""
    from darumeru.cli.tables import console, runs_table, suites_table, tasks_table
    from darumeru.record.run import find_runs

    if what == "runs":
        console().print(runs_table(find_runs(output)))
        return
    if what not in ("tasks", "suites"):
        raise unknown("list", what, ("tasks", "suites", "runs"))
    from darumeru.task.suite import Catalogue

    catalogue = Catalogue(include_path or ())
    if what == "suites":
        console().print(suites_table(list(catalogue.suites().values())))
    else:
        console().print(tasks_table(catalogue.tasks(), catalogue.runnable()))


def show(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    task: Annotated[str | None, typer.Option(help="Task whose samples to show.")] = None,
    sample: Annotated[int | None, typer.Option(help="Number of the sample; without it the first of the task.")] = None,
    as_json: Json = False,
) -> None:
    """Show the scores of a run, or one of its samples: prompt, answer, gold, score."""
    from darumeru.cli.tables import console, sample_panel, scores_table
    from darumeru.record.run import load_run

    loaded = load_run(run)
    if task is None:
        if sample is not None:
            raise UserError("--sample needs --task: sample numbers belong to a task.")
        if as_json:
            print_json({"header": loaded.header.to_json(), "scores": loaded.scores.to_json()})
        else:
            console().print(scores_table(loaded))
        return
    samples = {s.id: s for s in loaded.samples(task)}
    number = min(samples) if sample is None else sample
    if number not in samples:
        raise UserError(f"Task '{task}' has no sample {number}; it has {len(samples)}: {_ranges(sorted(samples))}.")
    if as_json:
        print_json(samples[number].to_json())
    else:
        console().print(sample_panel(task, samples[number]))


def rescore(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of the run's further tasks.")] = None,
) -> None:
    """Compute the scores of a run again from its stored answers."""
    from darumeru.cli.tables import console, scores_table
    from darumeru.evaluation import rescore as rescore_run
    from darumeru.record.run import load_run

    loaded = load_run(run)
    rules = {name: task.scoring or 1 for name, task in loaded.scores.tasks.items()}
    done = rescore_run(loaded, tuple(include_path or ()))
    console().print(scores_table(done))
    now = {name: task.scoring for name, task in done.scores.tasks.items()}
    if other := [
        f"{name} ({rules[name]} → {now[name]})" for name in rules if now.get(name, rules[name]) != rules[name]
    ]:
        console().print(
            f"Scored by other rules than before (version of the scoring): {', '.join(other)}.", soft_wrap=True
        )
    if failed := done.scores.failed:
        raise DarumeruError(f"Not scored: {'; '.join(f'{k} ({v})' for k, v in failed.items())}.")


def _ranges(numbers: list[int]) -> str:
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")
