"""Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it.

Each command of `lep` is one function here; names are imported when they are first used, so that `import lep` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError, UserError
from darumeru.extras import need

if TYPE_CHECKING:
    from lep.calibration import calibrate, make_data
    from lep.corpus.clean import clean_corpus
    from lep.corpus.dedup import dedup_corpus
    from lep.corpus.mix import mix_corpus
    from lep.initialisation.job import initialise
    from lep.measure.bits import bits_per_byte
    from lep.measure.chat import chat_measures
    from lep.measure.inspection import inspect_folder
    from lep.model.checkpoint import Checkpoint, open_checkpoint
    from lep.pretraining.control import train_control
    from lep.pretraining.job import pretrain
    from lep.pretraining.settings import PretrainSettings
    from lep.pretraining.sweep import sweep
    from lep.propagation.job import propagate
    from lep.propagation.linalg import least_squares, ridge
    from lep.tokenizer.scripts import script_shares
    from lep.tokenizer.transfer import build_transfer
    from lep.vocab.check import check_vocabulary
    from lep.vocab.commands import check_folders, extend_vocabulary, optimize_vocabulary, swap_vocabulary
    from lep.vocab.report import report_vocabularies
    from lep.vocab.train import train_vocabulary

_PLACES = {
    "Checkpoint": "model.checkpoint",
    "PretrainSettings": "pretraining.settings",
    "bits_per_byte": "measure.bits",
    "build_transfer": "tokenizer.transfer",
    "calibrate": "calibration",
    "chat_measures": "measure.chat",
    "check_folders": "vocab.commands",
    "check_vocabulary": "vocab.check",
    "clean_corpus": "corpus.clean",
    "dedup_corpus": "corpus.dedup",
    "extend_vocabulary": "vocab.commands",
    "initialise": "initialisation.job",
    "inspect_folder": "measure.inspection",
    "least_squares": "propagation.linalg",
    "make_data": "calibration",
    "mix_corpus": "corpus.mix",
    "open_checkpoint": "model.checkpoint",
    "optimize_vocabulary": "vocab.commands",
    "pretrain": "pretraining.job",
    "propagate": "propagation.job",
    "report_vocabularies": "vocab.report",
    "ridge": "propagation.linalg",
    "script_shares": "tokenizer.scripts",
    "swap_vocabulary": "vocab.commands",
    "sweep": "pretraining.sweep",
    "train_control": "pretraining.control",
    "train_vocabulary": "vocab.train",
}

__all__ = [
    "Checkpoint",
    "DarumeruError",
    "PretrainSettings",
    "UserError",
    "bits_per_byte",
    "build_transfer",
    "calibrate",
    "chat_measures",
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
    "train_control",
    "train_vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'lep' has no attribute {name!r}")
    need("regex", extra="lep")
    return getattr(importlib.import_module(f"lep.{_PLACES[name]}"), name)
