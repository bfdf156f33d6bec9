"""Races: documents are asked in a random order until a confidence sequence decides which model is better."""

from darumeru.race.contest import Pair, Race, race
from darumeru.race.until import Goal, Reached, run_until

__all__ = ["Goal", "Pair", "Race", "Reached", "race", "run_until"]
