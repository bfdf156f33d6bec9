"""Weights & Biases: its own environment variables hold (WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline, WANDB_DIR, …)."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from darumeru.trackers.base import COLUMNS, Report, Tracker


def _send(report: Report) -> str:
    client: Any = import_module("wandb")
    if os.environ.get("WANDB_MODE", "online") == "online" and not _logged_in(client):
        raise RuntimeError("nobody is logged in: 'wandb login', or WANDB_MODE=offline and 'wandb sync' later")
    settings = client.Settings(
        console="off", silent=True, disable_code=True, disable_git=True, save_code=False, init_timeout=30
    )
    run = client.init(
        project=os.environ.get("WANDB_PROJECT") or report.project,
        name=report.name,
        id=report.id[:32],
        resume="allow",
        job_type="evaluation",
        config=dict(report.settings),
        settings=settings,
    )
    try:
        columns = ["name", "title", "score", "low", "high", "documents"]
        scores = [[x.name, x.title, x.score.value, x.score.low, x.score.high, x.documents] for x in report.lines]
        logged: dict[str, Any] = {**report.values(), "scores": client.Table(columns=columns, data=scores)}
        for task, rows in report.samples.items():
            logged[f"samples/{task}"] = client.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        if report.step is not None:
            logged["training_step"] = report.step
        run.log(logged)
        return str(run.url or run.dir)
    finally:
        run.finish()


def _logged_in(client: Any) -> bool:
    """Return whether there is a key. By itself the client would ask for one at the terminal; a finished run waits for nobody."""
    try:
        return bool(client.login(prompt=False, verify=False))
    except TypeError:  # before 0.31
        return bool(client.api.api_key)


wandb = Tracker(("wandb",), _send)
