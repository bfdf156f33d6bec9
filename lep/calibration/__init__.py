"""Calibration: what repairs a model that reads and writes its new vocabulary imperfectly (arXiv 2412.21140).

`make_data` lets the original instruct model answer prompts, has a judge grade the answers and adds texts to copy;
`calibrate` trains on them with LoRA and merges the result into a plain model folder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lep.calibration.data import make_data
    from lep.calibration.recipe import RECIPES, Recipe
    from lep.calibration.train import calibrate

_PLACES = {"RECIPES": "recipe", "Recipe": "recipe", "calibrate": "train", "make_data": "data"}

__all__ = ["RECIPES", "Recipe", "calibrate", "make_data"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep.calibration' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lep.calibration.{_PLACES[name]}"), name)
