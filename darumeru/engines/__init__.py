"""Engines: a model that chooses among labels, ranks continuations and generates. They know no task.

An engine is one file. Each module or package of this folder beside `base` is an engine of that name and holds its class; other
packages add theirs with an entry point of the group `darumeru.engines` (`name = "package.module:Class"`).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError, unknown

if TYPE_CHECKING:
    from darumeru.engines.base import Engine, EngineOptions, Server

GROUP = "darumeru.engines"
"""The entry points of other packages' engines."""

AUTO = "auto"
"""Names the best engine that is available here, see `Engine.auto_priority`."""

__all__ = ["AUTO", "GROUP", "Engine", "EngineOptions", "Server", "engine_class", "engine_names", "open_engine"]


def engine_names() -> list[str]:
    """Return the names of all engines, sorted, without importing any."""
    return sorted({*_built_in(), *_plugins()})


def engine_class(name: str) -> type[Engine]:
    """Return the engine of a name; `auto` is the available one with the highest `auto_priority`.

    Raises:
        UserError: no such engine.
        DarumeruError: another package's engine cannot be imported, or is no engine.
    """
    if name == AUTO:
        return _best()
    if name in _built_in():
        return _defined_in(importlib.import_module(f"{__name__}.{name}"), name)
    if name in (plugins := _plugins()):
        return _loaded(plugins[name])
    raise unknown("engine", name, [AUTO, *engine_names()])


def open_engine(name: str, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> Engine:
    """Load a model folder into the named engine; see `Engine.load`."""
    return engine_class(name).load(model, tokenizer, eos_ids, options)


def _built_in() -> list[str]:
    return [m.name for m in pkgutil.iter_modules(__path__) if m.name != "base" and not m.name.startswith("_")]


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _defined_in(module: Any, name: str) -> type[Engine]:
    from darumeru.engines.base import Engine

    for _, found in inspect.getmembers(module, inspect.isclass):
        if issubclass(found, Engine) and found.__module__.startswith(module.__name__) and found.name == name:
            return found
    raise TypeError(f"{module.__name__} defines no Engine whose name is '{name}'")


def _loaded(point: EntryPoint) -> type[Engine]:
    from darumeru.engines.base import Engine

    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise DarumeruError(f"Engine '{point.name}' cannot be imported ({point.value}): {error}") from error
    if not (isinstance(found, type) and issubclass(found, Engine)) or found.name != point.name:
        raise DarumeruError(
            f"Engine '{point.name}': {point.value} is no subclass of darumeru.engines.Engine whose name is '{point.name}'."
        )
    return found


def _best() -> type[Engine]:
    found = []
    for name in engine_names():
        try:
            engine = engine_class(name)
        except DarumeruError:
            continue  # another package's broken engine is no reason to do without ours
        if engine.auto_priority is not None and engine.available():
            found.append(engine)
    return max(found, key=lambda engine: engine.auto_priority or 0)


_BASE = ("Engine", "EngineOptions", "Server")


def __getattr__(name: str) -> Any:
    """Import the base when it is first used: names are listed without lm-eval."""
    if name not in _BASE:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module("darumeru.engines.base"), name)
