"""One checkpoint evaluated in this process, and what came of it in plain words."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from darumeru.errors import BusyError, DarumeruError
from darumeru.evaluation import OpenEngine, Progress, Settings, execute, open_planned, prepare
from darumeru.race.challenge import challenge, lost
from darumeru.record.run import Run


def evaluated(
    settings: Settings,
    output: Path,
    against: str | None,
    progress: Progress,
    open_engine: OpenEngine = open_planned,
    planning: AbstractContextManager[object] | None = None,
) -> dict[str, Any]:
    """Evaluate what settings name.

    Args:
        settings: the run.
        output: folder of the run records.
        against: folder of the best run so far, if a checkpoint that is worse need not be evaluated to the end.
        progress: is told how far it has come.
        open_engine: what brings the model into an engine.
        planning: held while the prompts are built.

    Returns:
        `run` names the record's folder; or `error` says why there is none, and `busy` whether another process computes it.
    """
    try:
        with planning or nullcontext():
            plan = prepare(settings)
        if against:
            run = challenge(plan, Run(Path(against)), output, progress, open_engine)
        else:
            run = execute(plan, output, progress, open_engine)
        # What no document of a task fits will not change: the scores of the others are the checkpoint's.
        failed = {} if lost(run) else {k: v for k, v in run.scores.failed.items() if k not in plan.unfit}
        if failed:
            raise DarumeruError("; ".join(f"task {k}: {v}" for k, v in failed.items()))
    except DarumeruError as error:
        return {"error": str(error), "busy": isinstance(error, BusyError)}
    except Exception as error:
        if os.environ.get("DARUMERU_DEBUG"):
            raise
        return {"error": f"{type(error).__name__}: {error}", "busy": False}
    return {"run": str(run.path)}
