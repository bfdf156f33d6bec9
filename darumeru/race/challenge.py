"""A checkpoint against the best one so far: asked until it is clear that it is worse, or as a whole.

race.json    in the run's folder of one that is worse: by how much, after how many documents. Its run stays unfinished.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.evaluation import Plan, Progress, execute
from darumeru.files import read_json, write_json
from darumeru.race.contest import Race, race
from darumeru.race.contestants import OpenEngine, Recorded, live, raced_tasks, same_model
from darumeru.record.run import Run

if TYPE_CHECKING:
    from darumeru.settings import Settings

FILE = "race.json"


@dataclass(frozen=True)
class Lost:
    """What is known of a checkpoint that is worse than the best."""

    value: float
    """Score of the suite: the best one's and the middle of the interval of the difference."""
    low: float
    high: float
    difference: tuple[float, float]
    """Interval of its score minus the best one's, on the tasks as they count in a race."""
    documents: int
    of: int
    best: str
    """Name of the best one's run folder."""
    at: str


def check_challenge(settings: Settings, keep_best: str | None, metric: str) -> None:
    """Refuse settings with which nothing can be raced for the best.

    Args:
        settings: of the evaluations.
        keep_best: the metric whose best checkpoint is kept.
        metric: the suite's mean, which a race is about.

    Raises:
        UserError: they are such.
    """
    if keep_best not in (None, metric):
        raise UserError(
            f"--race-against best decides by {metric}, so checkpoints that are the best by {keep_best} may be left early. "
            f"Use --keep-best {metric}, or leave out --race-against."
        )
    if settings.likelihood or settings.exact:
        name = "--likelihood" if settings.likelihood else "--exact"
        raise UserError(f"{name} needs the whole evaluation of every checkpoint: leave out --race-against.")


def challenge(
    plan: Plan, best: Run, output: Path, progress: Progress | None = None, open_engine: OpenEngine | None = None
) -> Run:
    """Evaluate a checkpoint, but not to the end if it turns out to be worse than the best one.

    Args:
        plan: of its run.
        best: a finished run on the same documents.
        output: the folder under which the run lies.
        progress: is told how far it has come.
        open_engine: what loads it. [the plan's engine]

    Returns:
        The run: finished, or with a `race.json` that says by how much it is worse (`lost`).

    Raises:
        UserError: the best one's run cannot be compared with.
        DarumeruError: the engine failed; the answers so far are kept.
    """
    with live(plan, output, open_engine) as contestant:
        (contestant.run.path / FILE).unlink(missing_ok=True)
        if not contestant.run.complete:
            champion = Recorded.of(best, plan.suite.counted, raced_tasks(plan))
            if not same_model(contestant, champion):

                def report(found: Race) -> None:
                    if progress is not None:
                        progress(found.documents, found.of)

                # Every checkpoint gets an order of its own: the best was not chosen by any part of it.
                found = race([contestant, champion], seed=int(str(contestant.header.id)[:12], 16), report=report)
                if found.pairs[0].verdict == "second":
                    write_json(contestant.run.path / FILE, _lost(found, best))
                    return contestant.run
            contestant.finish(progress)
    return execute(plan, output, progress)


def _lost(found: Race, best: Run) -> dict[str, Any]:
    pair, score = found.pairs[0], float(best.scores.suite.value or 0.0)
    return {
        "value": score + (pair.low + pair.high) / 2,
        "low": score + pair.low,
        "high": score + pair.high,
        "difference": [pair.low, pair.high],
        "documents": pair.documents,
        "of": found.of,
        "best": best.path.name,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def lost(run: Run) -> Lost | None:
    """Return by how much a run's checkpoint is worse than the best one; None if it was not left for that."""
    if run.complete or not (run.path / FILE).is_file():
        return None
    with suppress(TypeError, UserError):
        told = read_json(run.path / FILE)
        return Lost(**{**told, "difference": tuple(told["difference"])})
    return None
