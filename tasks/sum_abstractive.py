"""Abstractive summaries, scored by ROUGE on lemmas."""

from collections.abc import Sequence

from darumeru.data.bundle import Row
from darumeru.requests import Answer
from darumeru.scoring.aggregate import mean
from darumeru.scoring.text import rouge
from darumeru.task import GenerateTask, Score


class SumAbstractive(GenerateTask):
    """The mean of ROUGE-1 and ROUGE-2 recall is the paper's score; recall and F of ROUGE-1, -2, -L stand beside it."""

    METRICS = {f"rouge{n}_{part}": mean for n in "12L" for part in ("recall", "f1")}

    def gold(self, doc: Row) -> str:
        """Return the reference summary."""
        return self.target(doc)

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return ROUGE of the answer."""
        return Score(rouge(self.gold(doc), answers[0].text), cluster=self.cluster(doc))


class Gazeta(SumAbstractive):
    """The score is ROUGE-L F, which the reference framework has used since it knows the task."""

    SCORING = 2
