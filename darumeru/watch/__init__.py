"""Evaluation while a model trains: in its memory (`DarumeruCallback`), or of the checkpoints it saves (`watch`).

>>> from darumeru.watch import DarumeruCallback
>>> DarumeruCallback(every=500).attach(trainer)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darumeru.watch.callback import DarumeruCallback
    from darumeru.watch.stop_file import StopFileCallback
    from darumeru.watch.watcher import watch

__all__ = ["DarumeruCallback", "StopFileCallback", "watch"]

_HOME = {"DarumeruCallback": "callback", "StopFileCallback": "stop_file", "watch": "watcher"}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: the callbacks need transformers."""
    if name not in _HOME:
        raise AttributeError(f"module 'darumeru.watch' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"darumeru.watch.{_HOME[name]}"), name)
