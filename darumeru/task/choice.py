"""Tasks in which the model chooses one of a fixed set of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from darumeru.data.bundle import Row
from darumeru.requests import Answer, Query
from darumeru.scoring.aggregate import NONE, Aggregate, accuracy, f1_macro
from darumeru.task.base import DarumeruTask
from darumeru.task.score import Score


def best(answer: Answer) -> tuple[int, bool]:
    """Return the index of the most probable option (the first of equals) and whether it had to share the top."""
    top = max(answer.logprobs)
    return answer.logprobs.index(top), answer.logprobs.count(top) > 1


class ChoiceTask(DarumeruTask):
    """The model chooses one of a fixed set of labels (`doc_to_choice`)."""

    @property
    def labels(self) -> list[str]:
        """The labels as data and record name them."""
        return [str(label) for label in self.config.doc_to_choice]

    def gold(self, doc: Row) -> str:
        """Return the gold label."""
        gold = self._say(self.config.doc_to_target, doc) if self.config.doc_to_target else str(doc["outputs"]).strip()
        if gold not in self.labels and not self.options.golds_outside:
            raise ValueError(f"field 'outputs': label '{gold}' is not one of {', '.join(self.labels)}")
        return gold

    def chosen(self, answer: Answer) -> tuple[str, bool]:
        """Return the label that an answer chooses and whether it had to share the top; an empty answer chooses `NONE`."""
        if answer.unfinished:
            return NONE, False
        index, tie = best(answer)
        return self.labels[index], tie

    def queries(self, doc: Row) -> list[Query]:
        """Return one question."""
        return [Query("choose", self.messages(doc), self.headline(doc), options=tuple(self.labels))]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return 1 for the gold label, 0 for another, under every metric."""
        gold, (pred, tie) = self.gold(doc), self.chosen(answers[0])
        return Score(
            {name: float(gold == pred) for name in self.metrics},
            gold=gold,
            pred=pred,
            cluster=self.cluster(doc),
            stratum=self.stratum(doc),
            ties=int(tie),
            golds_outside=int(gold not in self.labels),
        )


class ChoiceF1Task(ChoiceTask):
    """A choice that is also scored by macro-averaged F1."""

    METRICS: ClassVar[dict[str, Aggregate]] = {"acc": accuracy, "f1_macro": f1_macro}


def swapped(doc: Row) -> Row:
    """Return the document with its inputs `choice1` and `choice2` exchanged."""
    inputs = doc["inputs"]
    return {**doc, "inputs": {**inputs, "choice1": inputs["choice2"], "choice2": inputs["choice1"]}}


class PairedChoiceTask(ChoiceTask):
    """A choice between two options, asked in both orders; right only if both answers are."""

    def queries(self, doc: Row) -> list[Query]:
        """Return the question, and the question with the options exchanged."""
        return [*super().queries(doc), *super().queries(swapped(doc))]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return 1 if the gold label wins, and in the other order the other label."""
        gold = self.gold(doc)
        other = self.labels[1 - self.labels.index(gold)]
        chosen = [self.chosen(answer) for answer in answers]
        preds = [label for label, _ in chosen]
        return Score(
            {"acc": float(preds == [gold, other])},
            gold=gold,
            pred=preds[0],
            cluster=self.cluster(doc),
            ties=sum(tie for _, tie in chosen),
            extra={"pred_swapped": preds[1]},
        )
