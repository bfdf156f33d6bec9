"""TensorBoard: event files under TENSORBOARD_LOGGING_DIR, or `tensorboard/` beside the runs."""

from __future__ import annotations

import os
from pathlib import Path

from darumeru.trackers.base import COLUMNS, Report, Tracker
from darumeru.web.text import escape_markdown


def _send(report: Report) -> str:
    from torch.utils.tensorboard import SummaryWriter

    record = Path(report.record)
    folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or record.parent / "tensorboard") / record.name
    with SummaryWriter(str(folder)) as writer:
        for name, value in report.values().items():
            writer.add_scalar(f"darumeru/{name}", value, report.step or 0)
        settings = [f"* {key}: {escape_markdown(str(value))}" for key, value in report.settings.items()]
        for name, text in {"scores": report.table, "settings": "\n".join(settings)}.items():
            writer.add_text(f"darumeru/{name}", text, report.step or 0)
        for task, rows in report.samples.items():
            head = f"| {' | '.join(COLUMNS[1:])} |\n|{' --- |' * (len(COLUMNS) - 1)}"
            cells = (" | ".join(escape_markdown(str(value)) for value in row[1:]) for row in rows)
            text = "\n".join([head, *(f"| {row} |" for row in cells)])
            writer.add_text(f"samples/{task}", text, report.step or 0)
    return f"tensorboard --logdir {folder.parent}"


tensorboard = Tracker(("tensorboard",), _send)
