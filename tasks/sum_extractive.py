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

    def gold(self, doc: Row) -> list[int]:
        """Return the indices of the gold sentences."""
        gold = [int(i) for i in doc["extractive_summary"]]
        if not gold or not all(0 <= i < len(doc["src_sents"]) for i in gold):
            raise ValueError(
                f"field 'extractive_summary': {gold} are no indices of the {len(doc['src_sents'])} sentences"
            )
        return gold

    def gold_text(self, doc: Row) -> str:
        """Return the gold sentences."""
        return " ".join(doc["src_sents"][i] for i in self.gold(doc))

    def queries(self, doc: Row) -> list[Query]:
        """Return one ranking of all sentences."""
        return [Query("rank", self.messages(doc), options=tuple(doc["src_sents"]))]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return the R-precision of the ranking."""
        scores, gold = answers[0].logprobs, self.gold(doc)
        top = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: len(gold)]
        return Score({"r_precision": r_precision(scores, gold)}, cluster=self.cluster(doc), extra={"top": top})
