"""MLflow: its own environment variables hold (MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, …); without them files here."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from darumeru.trackers.base import COLUMNS, Report, Tracker


def _send(report: Report) -> str:
    # A run that is finished does not wait ten minutes for a server that is not there.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    client: Any = import_module("mlflow")
    experiment = client.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or report.project)
    with client.start_run(run_name=report.name, tags={"record_id": report.id, "record": report.record}) as run:
        client.log_params({key: value for key, value in report.settings.items() if value is not None})
        client.log_metrics(report.values(), step=report.step or 0)
        client.log_text(report.table, "scores.md")
        rows = [row for samples in report.samples.values() for row in samples]
        client.log_table({c: [row[i] for row in rows] for i, c in enumerate(COLUMNS)}, "samples.json")
        return f"{client.get_tracking_uri()}, experiment {experiment.name}, run {run.info.run_id}"


mlflow = Tracker(("mlflow",), _send)
