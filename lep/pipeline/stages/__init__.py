"""The stages of the pipeline, one a file, in the order in which they are run.

Other packages add stages through the entry point group `lep.stages`; each says which stage it follows (`Stage.after`).
"""

from __future__ import annotations

from typing import Any

from darumeru import plugins
from darumeru.errors import unknown
from lep.pipeline.stage import Stage
from lep.pipeline.stages.calibrate import calibrate
from lep.pipeline.stages.chats import chats
from lep.pipeline.stages.evaluate import evaluate
from lep.pipeline.stages.init import init
from lep.pipeline.stages.instruct import instruct
from lep.pipeline.stages.pretrain import pretrain
from lep.pipeline.stages.propagate import propagate
from lep.pipeline.stages.vocab import vocab

GROUP = "lep.stages"


def _with_others(own: tuple[Stage[Any], ...]) -> tuple[Stage[Any], ...]:
    """Return the stages with those of other packages, each behind the one that it follows.

    Raises:
        UserError: a stage follows one that there is not.
        DarumeruError: a stage cannot be imported, or is no `Stage`.
    """
    stages = list(own)
    for name in plugins.names(__name__, GROUP):
        if name not in {stage.name for stage in own}:
            stage = plugins.find(__name__, GROUP, name, Stage, what="stage")  # type: ignore[type-abstract]
            order = [other.name for other in stages]
            if stage.after not in order:
                raise unknown(f"stage before the stage '{name}'", str(stage.after), order)
            stages.insert(order.index(stage.after) + 1, stage)
    return tuple(stages)


STAGES = _with_others((vocab, init, chats, pretrain, instruct, propagate, calibrate, evaluate))

__all__ = ["STAGES", "calibrate", "chats", "evaluate", "init", "instruct", "pretrain", "propagate", "vocab"]
