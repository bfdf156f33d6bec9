"""samples/TASK.jsonl: for each document the prompts, the answers, the gold answer and the scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from darumeru.errors import UserError
from darumeru.record.model import Part, fault
from darumeru.requests import Answer, Request

if TYPE_CHECKING:
    from darumeru.scoring.aggregate import Table


def gold_text(gold: Any) -> str:
    """Return a gold answer as it is shown, whatever a task has for one: a text, several, or any other JSON.

    >>> gold_text(["да", "нет"]), gold_text(5)
    ('да, нет', '5')
    """
    if isinstance(gold, str):
        return gold
    if isinstance(gold, list):
        return ", ".join(map(gold_text, gold))
    return json.dumps(gold, ensure_ascii=False)


class GivenAnswer(Part):
    """What the engine said; fields as in `darumeru.requests.Answer`, the empty ones left out."""

    approximate: bool = False
    finish: Literal["", "stop", "length"] = ""
    greedy: list[bool] = []
    logprobs: list[float] = []
    rethought: bool = False
    text: str = ""
    thought: str = ""
    thought_tokens: list[int] = []
    tokens: list[int] = []
    unfinished: bool = False

    @property
    def generated(self) -> bool:
        """Return whether it is a text, not a choice or a ranking."""
        return bool(self.finish)

    def answer(self) -> Answer:
        """Return it as an engine gives it, without its id."""
        return Answer.from_json({"id": "", **self.to_json()})


class Asked(Part):
    """A request and its answer."""

    after_thought: str = ""
    """What was put between thought and answer: the end of the thought, and the beginning of the answer."""
    answer: GivenAnswer
    num_fewshot: int
    """Few-shot examples that fitted."""
    prompt: str
    """As text, after few-shot fitting and truncation."""
    prompt_tokens: int | None
    """None where another tool asked, and did not say."""
    reference_tokens: int | None
    """Length of the reference text in the model's tokens, where the score needs it."""
    repeat: int = 0
    """Which of the answers to its query, where several are drawn."""
    truncated: int
    """Tokens cut off the left of the prompt."""

    @classmethod
    def of(cls, request: Request, answer: Answer) -> Asked:
        """Return the record of a request and its answer."""
        # Only where the model thinks, or answers several times: other records have no such keys.
        seldom: dict[str, Any] = {"after_thought": request.thinking.text} if request.thinking else {}
        seldom |= {"repeat": request.repeat} if request.repeat else {}
        return cls(
            **seldom,
            prompt=request.text,
            prompt_tokens=request.prompt_tokens,
            num_fewshot=request.num_fewshot,
            truncated=request.truncated,
            reference_tokens=request.reference_tokens,
            answer=GivenAnswer(**{k: v for k, v in answer.to_json().items() if k != "id"}),
        )


class Repeat(Part):
    """What one of a document's drawn answers is worth; fields as in `Sample`."""

    score: dict[str, int | float]
    pred: str | None = None
    extra: dict[str, Any] = {}


class Sample(Part):
    """A document of a task with all that was asked, answered and scored. The scores are missing until it is scored."""

    id: int
    """The document's index in its split, from 0."""
    doc: dict[str, Any]
    gold: Any
    requests: list[Asked]
    cluster: str | None = None
    """Documents with equal clusters are not independent and are resampled together."""
    stratum: str | None = None
    pred: str | None = None
    """The chosen label; of several repeats, the one chosen most often."""
    score: dict[str, int | float] = {}
    """By metric; of several repeats, the means."""
    repeats: list[Repeat] = []
    """What each repeat is worth, where there are several."""
    ties: int = 0
    repeated_golds: int = 0
    golds_outside: int = 0
    """Gold answers of the row that are none of the options."""
    extra: dict[str, Any] = {}
    """More about the answer that a reader wants to see."""

    def of_repeat(self, number: int) -> Sample:
        """Return the document as if it had been answered in one repeat only; itself where it was not repeated."""
        if not self.repeats:
            return self
        repeat = self.repeats[number]
        return self.model_copy(update={"score": repeat.score, "pred": repeat.pred, "repeats": []})

    def mark(self, primary: Sequence[str]) -> float:
        """Return the mean of the metrics in `primary`."""
        return float(
            self.score[primary[0]] if len(primary) == 1 else sum(self.score[m] for m in primary) / len(primary)
        )


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a file in its order.

    Raises:
        UserError: the file is missing, or a line is not a sample.
    """
    number = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 - for the message
                if not line.isspace():
                    yield Sample.model_validate_json(line)
    except FileNotFoundError:
        raise UserError(f"'{path}' does not exist.") from None
    except ValidationError as error:
        raise fault(error, f"'samples/{path.name}', line {number}") from None


def table_of(samples: Sequence[Sample], metrics: Iterable[str] | None = None) -> Table:
    """Return the scores of a task's documents as columns.

    Args:
        samples: scored; one or more.
        metrics: which; all by default.
    """
    from darumeru.scoring.aggregate import Table  # numpy, which `darumeru show` of a missing run can do without

    names = [n for n in (samples[0].score if metrics is None else metrics) if n in samples[0].score]
    count = max(len(s.repeats) for s in samples)
    return Table.build(
        {name: [float(s.score[name]) for s in samples] for name in names},
        gold=[s.gold if s.pred is not None else None for s in samples],
        pred=[s.pred for s in samples],
        clusters=[s.cluster for s in samples],
        strata=[s.stratum for s in samples],
        repeats=[[s.of_repeat(number).pred for s in samples] for number in range(count)],
    )


def tables_of_repeats(samples: Sequence[Sample]) -> list[Table]:
    """Return the scores of a task's documents in each repeat; none where nothing is repeated."""
    count = max(len(s.repeats) for s in samples)
    return [table_of([s.of_repeat(number) for s in samples]) for number in range(count)]
