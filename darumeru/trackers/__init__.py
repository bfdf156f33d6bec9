"""Trackers of experiments: where the scores of finished runs go beside their records.

A tracker is one file (`darumeru.plugins`). Each module of this folder beside `base` is one, and holds its `Tracker` under its own
name; other packages add theirs with an entry point of the group `darumeru.trackers`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from darumeru import plugins
from darumeru.errors import UserError, unknown

if TYPE_CHECKING:
    from darumeru.record.run import Run
    from darumeru.trackers.base import Tracker

GROUP = "darumeru.trackers"
"""The entry points of other packages' trackers."""


def tracker_names() -> list[str]:
    """Return the names of all trackers, sorted, without importing any."""
    return [name for name in plugins.names(__name__, GROUP) if name != "base"]


def find_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """Return trackers by name; call it before the work begins.

    Raises:
        UserError: no such tracker, or its package is not installed.
    """
    from importlib.util import find_spec

    from darumeru.trackers.base import Tracker

    found: dict[str, Tracker] = {}
    for name in names:
        if name not in tracker_names():
            raise unknown("tracker", name, tracker_names())
        found[name] = plugins.find(__name__, GROUP, name, Tracker, what="tracker")
        if missing := [module for module in found[name].modules if find_spec(module) is None]:
            raise UserError(f"--track {name} needs {' and '.join(missing)}: pip install {' '.join(missing)}.")
    return found


def track(run: Run, trackers: Mapping[str, Tracker], warn: Callable[[str], None]) -> dict[str, str]:
    """Tell trackers of a finished run. One that fails is warned of, whatever it raises: the record is whole without it.

    Args:
        run: the run.
        trackers: by name.
        warn: takes one sentence for each that failed.

    Returns:
        Tracker → where the run can be looked at.
    """
    from darumeru.trackers.base import report_of

    places: dict[str, str] = {}
    report = None
    for name, tracker in trackers.items():
        try:
            report = report or report_of(run)
            places[name] = without_secrets(tracker.send(report))
        except Exception as error:  # another's code, another's network
            reason = next(iter(str(error).strip().splitlines()), "").rstrip(".")
            warn(
                f"Not tracked by {name} ({type(error).__name__}: {without_secrets(reason)}). The record is whole; "
                "the same command tries again."
            )
    return places


def without_secrets(text: str) -> str:
    """Return a text without user names and passwords of addresses, and without the keys that the environment holds."""
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(r"KEY|TOKEN|SECRET|PASSWORD", name):
            text = text.replace(value, "***")
    return text
