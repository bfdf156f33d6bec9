"""scores.json: the scores of tasks, groups and suite with their intervals."""

from __future__ import annotations

from typing import Any

from darumeru.record.model import FileName, Part


class Score(Part):
    """A number and the bounds of its interval; None where there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    """How the interval was made (`scoring.estimate`); records without the key have percentiles of an older bootstrap."""
    reason: str | None = None
    """Why there is no interval."""


class Spread(Part):
    """How much a score differs from repeat to repeat of the drawn answers."""

    deviation: float
    """Standard deviation of the values, divided by their number less one."""
    values: list[float]
    """The score of each repeat; their mean is the score."""


class Mean(Score):
    """The mean of a group or of the suite."""

    title: str = ""
    repeats: Spread | None = None


class TaskResult(Part):
    """The scores of a task, and what a reader should know beside them."""

    score: Score
    """The mean of the metrics in `primary`."""
    primary: list[str]
    metrics: dict[str, Score]
    aggregates: dict[str, str | None] = {}
    """Metric → name of the function that makes the task's value of its documents' (`scoring.aggregate.AGGREGATES`).

    None where the task brings its own; old records lack the key (see `record.draws.aggregates_of`).
    """
    documents: int
    units: int
    """How many are independent of each other; the bootstrap resamples these."""
    level: float
    """Of the intervals."""
    resamples: int
    scoring: int | None = None
    """The version of the task's scoring, which is raised when a metric changes."""
    higher_is_better: bool = True
    ties: int = 0
    """Documents whose best labels had exactly the same probability."""
    repeated_golds: int = 0
    """Gold answers that stand in their row more than once."""
    golds_outside: int = 0
    """Gold answers that are none of their row's options: nothing can match them."""
    truncated_prompts: int = 0
    fewshot_used: float = 0.0
    """Few-shot examples that fitted, mean over requests."""
    empty_answers: int = 0
    cut_answers: int = 0
    """Answers that hit max_tokens."""
    repeats: Spread | None = None
    """Of the score, where answers are drawn several times."""
    requests: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    approximate_answers: int = 0
    thought_tokens: int = 0
    """Generated for thoughts, their ends included; this and the following keys stand where the model thought."""
    unfinished_thoughts: int = 0
    """Requests whose thought did not end: their answers are empty."""
    rethought_answers: int = 0
    """Answers with a second thought, inside the first or in the answer itself."""
    finished_documents: int = 0
    """Documents with an answer whose thoughts ended; where a cluster's values are summed, all of it has one."""
    finished_score: Score | None = None
    """The score over these documents alone; of several repeats, over the finished ones."""
    seconds: float | None = None
    """The engine's time."""


class Time(Part):
    """How long the process that finished the run took."""

    wall_seconds: float
    engine_seconds: float
    not_engine_share: float


class Rescored(Part):
    """When, and by which version, the scores were computed again."""

    at: str
    darumeru: str


class Scores(Part):
    """The scores of a run."""

    suite: Mean
    groups: dict[str, Mean]
    tasks: dict[FileName, TaskResult]
    failed: dict[str, str]
    """Task → why it has no score."""
    engine: dict[str, Any] = {}
    """What the engine said of itself."""
    wall_seconds: float | None = None
    """In records from before `time`."""
    time: Time | None = None
    finished: str | None = None
    rescored: Rescored | None = None

    @property
    def approximate(self) -> list[str]:
        """Return the tasks with approximate answers, which a server gave that has no exact ones."""
        return [name for name, task in self.tasks.items() if task.approximate_answers]
