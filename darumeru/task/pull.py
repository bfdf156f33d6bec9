"""Offline bundles of all data that a suite reads."""

from __future__ import annotations

from pathlib import Path

from darumeru.data.bundle import HubBundle
from darumeru.data.pull import Source, write_bundle
from darumeru.task.suite import Catalogue, Suite


def pull(suite: Suite | str, output: Path, lock: Path | None = None, catalogue: Catalogue | None = None) -> Path:
    """Write an offline bundle of the test and few-shot splits of a suite's tasks, from the hub; see `write_bundle`.

    Args:
        suite: the suite or its name.
        output: the folder.
        lock: a `bundle.json` whose revisions are fetched.
        catalogue: where the tasks are looked up.

    Returns:
        The path of `bundle.json`.

    Raises:
        UserError: no such suite, the folder holds other data, or the hub has no such data set.
        DarumeruError: the hub cannot be reached.
    """
    catalogue = catalogue or Catalogue()
    suite = catalogue.suite(suite) if isinstance(suite, str) else suite
    tasks = catalogue.load(suite.tasks, HubBundle()).values()  # loads no rows
    sources = [Source(str(task.config.dataset_path), task.config.dataset_name, tuple(task.splits())) for task in tasks]
    return write_bundle(suite.name, sources, output, lock)
