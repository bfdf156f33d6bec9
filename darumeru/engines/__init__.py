"""Engines: a model that chooses among labels, ranks continuations and generates. They know no task.

An engine is one file (`darumeru.plugins`). Each module or package of this folder beside `base` is an engine, and holds its class
under its own name; other packages add theirs with an entry point of the group `darumeru.engines`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru import plugins
from darumeru.errors import DarumeruError, unknown

if TYPE_CHECKING:
    from darumeru.engines.base import Device, Engine, EngineOptions, Server

GROUP = "darumeru.engines"
"""The entry points of other packages' engines."""

AUTO = "auto"
"""Names the best engine that is available here, see `Engine.auto_priority`."""

__all__ = ["AUTO", "GROUP", "Engine", "EngineOptions", "Server", "engine_class", "engine_names", "open_engine"]


def engine_names() -> list[str]:
    """Return the names of all engines, sorted, without importing any."""
    return [name for name in plugins.names(__name__, GROUP) if name != "base"]


def engine_class(name: str, device: Device = "auto") -> type[Engine]:
    """Return the engine of a name; `auto` is the available one for the device with the highest `auto_priority`.

    Raises:
        UserError: no such engine, or more than one.
        DarumeruError: another package's engine cannot be imported, or is no engine.
    """
    if name == AUTO:
        return _best(device)
    if name not in engine_names():
        raise unknown("engine", name, [AUTO, *engine_names()])
    from darumeru.engines.base import Engine

    found = plugins.find(__name__, GROUP, name, type, what="engine")
    if not issubclass(found, Engine) or found.name != name:
        raise DarumeruError(
            f"The engine '{name}' ({found.__module__}:{found.__qualname__}) is no subclass of darumeru.engines.Engine whose "
            f"name is '{name}'."
        )
    return found


def open_engine(name: str, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> Engine:
    """Load a model folder into the named engine; see `Engine.load`."""
    return engine_class(name).load(model, tokenizer, eos_ids, options)


def _best(device: Device) -> type[Engine]:
    found = []
    for name in engine_names():
        try:
            engine = engine_class(name)
        except DarumeruError:
            continue  # another package's broken engine is no reason to do without ours
        if engine.auto_priority is not None and engine.available() and engine.computes_on(device):
            found.append(engine)
    return max(found, key=lambda engine: engine.auto_priority or 0)


_BASE = ("Engine", "EngineOptions", "Server")


def __getattr__(name: str) -> Any:
    """Import the base when it is first used: names are listed without lm-eval."""
    if name not in _BASE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module("darumeru.engines.base"), name)
