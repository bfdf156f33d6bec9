"""The stages of the pipeline, one a file, in the order in which they are run."""

from __future__ import annotations

from typing import Any

from lep.pipeline.stage import Stage
from lep.pipeline.stages.calibrate import calibrate
from lep.pipeline.stages.evaluate import evaluate
from lep.pipeline.stages.init import init
from lep.pipeline.stages.instruct import instruct
from lep.pipeline.stages.pretrain import pretrain
from lep.pipeline.stages.propagate import propagate
from lep.pipeline.stages.vocab import vocab

STAGES: tuple[Stage[Any], ...] = (vocab, init, pretrain, instruct, propagate, calibrate, evaluate)

__all__ = ["STAGES", "calibrate", "evaluate", "init", "instruct", "pretrain", "propagate", "vocab"]
