"""A race of models and runs that are named by their folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.evaluation import Plan, prepare
from darumeru.race.contest import Race, Report, check_settings, race
from darumeru.race.contestants import Contestant, Recorded, live, raced_tasks
from darumeru.race.record import write
from darumeru.record.run import load_run
from darumeru.settings import Settings, settings_of


def race_models(
    names: Sequence[str],
    *,
    output: str | Path = "runs",
    alpha: float = 0.05,
    margin: float | None = None,
    report: Report = lambda race: None,
    **settings: Any,
) -> Race:
    """Race models and finished runs, and write the record.

    Args:
        names: model folders, hub ids, or folders of finished runs; two or more.
        output: the folder under which runs and race get folders of their own.
        alpha: see `race`.
        margin: see `race`.
        report: is told after each look.
        settings: of the models' runs, see `darumeru.evaluation.Settings`; of finished runs only `tasks` chooses.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was answered is kept.
    """
    check_settings(alpha, margin)
    if len(names) < 2:
        raise UserError("A race needs two models or more: name another model folder, or the folder of a finished run.")
    seed = int(settings.get("seed", 0))
    with contestants_of(names, Path(output), settings) as contestants:
        found = race(contestants, alpha=alpha, margin=margin, seed=seed, report=report)
        write(found, contestants, seed, Path(output))
    return found


def settings_for_race(**values: Any) -> Settings:
    """Return the settings of a run whose documents are asked in a random order.

    Raises:
        UserError: an impossible setting, or one that such a run cannot have.
    """
    made = settings_of(**values)
    if made.likelihood:
        raise UserError(
            "--likelihood: log-probabilities have no bounds, so a part of the documents does not tell the rest."
        )
    if made.exact:
        raise UserError("--exact needs the batches of a whole run; here documents are asked a few at a time.")
    return made


def _check_engine(name: str) -> None:
    from darumeru.engines import engine_class

    if engine_class(name).needs_server:
        raise UserError(
            f"--engine {name} asks one server for one model. Finish its run with 'darumeru run', and name the run's folder here."
        )


@contextmanager
def contestants_of(names: Sequence[str], output: Path, settings: dict[str, Any]) -> Iterator[list[Contestant]]:
    """Give the contestants that are named, ready to be asked."""
    resolved = [str(Path(n).resolve()) if Path(n).exists() else n for n in names]
    if twice := [n for i, n in enumerate(names) if resolved[i] in resolved[:i]]:
        raise UserError(f"'{twice[0]}' is named twice. A race needs two different models.")
    _check_engine(settings.get("engine", "auto"))
    finished = [(Path(n) / "header.json").is_file() for n in names]
    plans: dict[str, Plan] = {
        n: prepare(settings_for_race(model=n, **settings)) for n, run in zip(names, finished, strict=True) if not run
    }
    like = raced_tasks(next(iter(plans.values()))) if plans else None
    only = list(like) if like else settings.get("tasks", ())
    with ExitStack() as stack:
        yield [
            Recorded.of(load_run(n), only, like) if run else stack.enter_context(live(plans[n], output))
            for n, run in zip(names, finished, strict=True)
        ]
