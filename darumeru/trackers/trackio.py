"""Trackio: on this machine, or where its own environment variables say (TRACKIO_SPACE_ID, TRACKIO_DIR, …)."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from darumeru.trackers.base import COLUMNS, Report, Tracker


def _send(report: Report) -> str:
    client: Any = import_module("trackio")
    project = os.environ.get("TRACKIO_PROJECT") or report.project
    client.init(
        project=project,
        name=f"{report.name}-{report.id[:10]}",
        config=dict(report.settings),
        resume="allow",
        embed=False,
    )
    try:
        client.log({**report.values(), **{f"samples/{t}": _table(client, rows) for t, rows in report.samples.items()}})
    finally:
        client.finish()
    return f"trackio show --project {project}"


def _table(client: Any, rows: list[tuple[str, int, str, str, str, float]]) -> Any:
    import pandas

    return client.Table(dataframe=pandas.DataFrame(rows, columns=list(COLUMNS)))


trackio = Tracker(("trackio",), _send)
