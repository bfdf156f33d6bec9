"""Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it.

Each command of `lep` is one function here; names are imported when they are first used, so that `import lep` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lep.errors import LepError, UserError

if TYPE_CHECKING:
    from lep.bits import bits_per_byte
    from lep.checkpoint import Checkpoint, open_checkpoint
    from lep.initialisation import initialise
    from lep.inspection import inspect_folder
    from lep.linalg import least_squares, ridge
    from lep.pretraining import PretrainSettings, pretrain
    from lep.propagation import propagate
    from lep.sweep import sweep
    from lep.transfer import build_transfer
    from lep.vocab_check import check_vocabulary
    from lep.vocab_report import report_vocabularies
    from lep.vocab_train import train_vocabulary
    from lep.vocabulary import check_folders, extend_vocabulary, optimize_vocabulary, swap_vocabulary

_PLACES = {
    "Checkpoint": "checkpoint",
    "PretrainSettings": "pretraining",
    "bits_per_byte": "bits",
    "build_transfer": "transfer",
    "check_folders": "vocabulary",
    "check_vocabulary": "vocab_check",
    "extend_vocabulary": "vocabulary",
    "initialise": "initialisation",
    "inspect_folder": "inspection",
    "least_squares": "linalg",
    "open_checkpoint": "checkpoint",
    "optimize_vocabulary": "vocabulary",
    "pretrain": "pretraining",
    "propagate": "propagation",
    "report_vocabularies": "vocab_report",
    "ridge": "linalg",
    "swap_vocabulary": "vocabulary",
    "sweep": "sweep",
    "train_vocabulary": "vocab_train",
}

__all__ = [
    "Checkpoint",
    "LepError",
    "PretrainSettings",
    "UserError",
    "bits_per_byte",
    "build_transfer",
    "check_folders",
    "check_vocabulary",
    "extend_vocabulary",
    "initialise",
    "inspect_folder",
    "least_squares",
    "open_checkpoint",
    "optimize_vocabulary",
    "pretrain",
    "propagate",
    "report_vocabularies",
    "ridge",
    "swap_vocabulary",
    "sweep",
    "train_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lep.{_PLACES[name]}"), name)
