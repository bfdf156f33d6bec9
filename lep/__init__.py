"""Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it.

Each command of `lep` is one function here; names are imported when they are first used, so that `import lep` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lep.errors import LepError, UserError

if TYPE_CHECKING:
    from lep.bits import bits_per_byte
    from lep.calibration import calibrate, make_data
    from lep.checkpoint import Checkpoint, open_checkpoint
    from lep.corpus_clean import clean_corpus
    from lep.corpus_dedup import dedup_corpus
    from lep.corpus_mix import mix_corpus
    from lep.initialisation import initialise
    from lep.inspection import inspect_folder
    from lep.linalg import least_squares, ridge
    from lep.pretraining import PretrainSettings, pretrain
    from lep.propagation import propagate
    from lep.scripts import script_shares
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
    "calibrate": "calibration",
    "check_folders": "vocabulary",
    "check_vocabulary": "vocab_check",
    "clean_corpus": "corpus_clean",
    "dedup_corpus": "corpus_dedup",
    "extend_vocabulary": "vocabulary",
    "initialise": "initialisation",
    "inspect_folder": "inspection",
    "least_squares": "linalg",
    "make_data": "calibration",
    "mix_corpus": "corpus_mix",
    "open_checkpoint": "checkpoint",
    "optimize_vocabulary": "vocabulary",
    "pretrain": "pretraining",
    "propagate": "propagation",
    "report_vocabularies": "vocab_report",
    "ridge": "linalg",
    "script_shares": "scripts",
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
    "calibrate",
    "check_folders",
    "check_vocabulary",
    "clean_corpus",
    "dedup_corpus",
    "extend_vocabulary",
    "initialise",
    "inspect_folder",
    "least_squares",
    "make_data",
    "mix_corpus",
    "open_checkpoint",
    "optimize_vocabulary",
    "pretrain",
    "propagate",
    "report_vocabularies",
    "ridge",
    "script_shares",
    "swap_vocabulary",
    "sweep",
    "train_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lep.{_PLACES[name]}"), name)
