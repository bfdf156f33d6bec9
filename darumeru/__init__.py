"""Darumeru: an offline benchmark harness for language models adapted to Russian.

>>> run = darumeru.evaluate("path/to/model", data="mini")
>>> run.scores["suite"]["value"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError, UserError

if TYPE_CHECKING:
    from darumeru.evaluation import evaluate, rescore
    from darumeru.record.run import Run, load_run
    from darumeru.settings import Settings

__all__ = ["DarumeruError", "Run", "Settings", "UserError", "evaluate", "load_run", "rescore"]

_HOME = {
    "Settings": "settings",
    "evaluate": "evaluation",
    "rescore": "evaluation",
    "Run": "record.run",
    "load_run": "record.run",
}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import darumeru` is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'darumeru' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"darumeru.{_HOME[name]}"), name)
