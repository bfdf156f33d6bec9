"""Judged generation: models answer prompts, a judge compares their answers in pairs.

For what closed tasks cannot see: whether a calibrated model writes better than the one it was made from.

    prompts → each model's answers → pairs in both orders → the judge's opinions → verdicts → strengths
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darumeru.arena.contest import arena
    from darumeru.arena.record import Arena
    from darumeru.arena.settings import ArenaSettings

__all__ = ["Arena", "ArenaSettings", "arena"]

_HOME = {"Arena": "record", "ArenaSettings": "settings", "arena": "contest"}


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used: the command's help needs the settings alone."""
    if name not in _HOME:
        raise AttributeError(f"module 'darumeru.arena' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"darumeru.arena.{_HOME[name]}"), name)
