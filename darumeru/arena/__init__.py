"""Judged generation: models answer prompts, a judge compares their answers in pairs.

For what closed tasks cannot see: whether a calibrated model writes better than the one it was made from.

    prompts → each model's answers → pairs in both orders → the judge's opinions → verdicts → strengths
"""

from darumeru.arena.contest import arena
from darumeru.arena.record import Arena
from darumeru.arena.settings import ArenaSettings

__all__ = ["Arena", "ArenaSettings", "arena"]
