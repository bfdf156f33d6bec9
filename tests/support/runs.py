"""Runs, made ready to be compared."""

from typing import Any

from darumeru.record.run import Run
from darumeru.record.scores import Scores


def comparable(scores: Scores) -> dict[str, Any]:
    """Scores without times."""
    tasks = {t: r.model_dump(exclude={"seconds"}) for t, r in scores.tasks.items()}
    return {"suite": scores.suite, "groups": scores.groups, "tasks": tasks, "failed": scores.failed}


def samples(run: Run) -> dict[str, list[Any]]:
    return {task: list(run.samples(task)) for task in run.tasks}
