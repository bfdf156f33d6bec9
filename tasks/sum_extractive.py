"""Extractive summaries: which sentences of a document does the model find most probable as its most important ones?"""

from collections.abc import Sequence

from darumeru.data.bundle import Row
from darumeru.requests import Answer, Query
from darumeru.scoring.aggregate import mean
from darumeru.scoring.text import r_precision
from darumeru.task import DarumeruTask, Score


class SumExtractive(DarumeruTask):
    """R-precision of the document's sentences, ranked by mean log-probability of their first tokens."""

    METRICS = {"r_precision": mean}
    SCORING = 2

    def gold(self, doc: Row) -> list[int]:
        """Return the indices of the gold sentences, each once; data sets repeat some, and some are of no sentence."""
        if not doc["extractive_summary"]:
            raise ValueError("field 'extractive_summary' is empty")
        return list(dict.fromkeys(i for i in map(int, doc["extractive_summary"]) if 0 <= i < len(doc["src_sents"])))

    def gold_text(self, doc: Row) -> str:
        """Return the gold sentences."""
        return " ".join(doc["src_sents"][i] for i in self.gold(doc))

    def queries(self, doc: Row) -> list[Query]:
        """Return one ranking of all sentences."""
        return [Query("rank", self.messages(doc), self.headline(doc), options=tuple(doc["src_sents"]))]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return the R-precision of the ranking; 0 where no gold index is of a sentence."""
        scores, gold = answers[0].logprobs, self.gold(doc)
        top = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: len(gold)]
        listed = [int(i) for i in doc["extractive_summary"]]
        distinct = len(set(listed))
        return Score(
            {"r_precision": r_precision(scores, gold)},
            cluster=self.cluster(doc),
            extra={"top": top},
            repeated_golds=len(listed) - distinct,
            golds_outside=distinct - len(gold),
        )
