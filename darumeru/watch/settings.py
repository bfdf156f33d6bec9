"""What a watch is asked to do."""

from __future__ import annotations

from typing import Annotated, Literal

from darumeru.options import Option
from darumeru.settings import (
    EngineSettings,
    SamplingSettings,
    Suite,
    TaskSettings,
    ThinkingSettings,
    Tokenizer,
    WorkerSettings,
)

_Device = Annotated[str, Option("auto, cpu, cuda, or cuda:N, a GPU for the evaluations alone.")]


class WatchSettings(ThinkingSettings, EngineSettings, TaskSettings, SamplingSettings, WorkerSettings):
    """What is asked of every checkpoint, and when a watch ends: the keywords of `darumeru.watch.watch`."""

    suite: Suite = "darumeru-train"
    engine: Annotated[str, Option("hf, vllm, or auto (vLLM where it is installed).")] = "auto"
    device: _Device = "auto"  # type: ignore[assignment] # wider than a run's: the runs see only the GPU that is chosen here
    tokenizer: Tokenizer = None
    name: Annotated[str | None, Option("The training's name in records.", default="the folder's")] = None
    rules: Annotated[
        tuple[str, ...],
        Option(
            "Rule, e.g. 'darucopy_ru < 0.9 for 3' (repeatable): writes STOP, exit code 3.",
            flag="--stop-if",
            metavar="RULE",
        ),
    ] = ()
    keep_best: Annotated[
        str | None, Option("Metric whose best checkpoint is kept as CHECKPOINTS/best.", metavar="METRIC")
    ] = None
    race_against: Annotated[
        Literal["best"] | None,
        Option(
            "Ask a checkpoint only until it is clear that it is worse than the best so far.",
            default="whole evaluations",
        ),
    ] = None
    once: Annotated[bool, Option("Evaluate what is there and end.", flag="--once", decides=False)] = False
    newest_first: Annotated[bool, Option("Catch up from the newest on.", flag="--newest-first", decides=False)] = False
    until_step: Annotated[int | None, Option("End after this step.", default="the training's own last one")] = None
    poll: Annotated[float, Option("Seconds between two looks.", decides=False)] = 10.0
