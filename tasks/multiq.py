"""MultiQ: a question over two texts, answered in a few words."""

from collections.abc import Callable, Sequence

from darumeru.data.bundle import Row
from darumeru.requests import Answer
from darumeru.scoring.aggregate import mean
from darumeru.scoring.text import exact, f1, russian_words, squad_words
from darumeru.task import GenerateTask, Score


class MultiQ(GenerateTask):
    """SQuAD's F1 and exact match, the best over the gold answers; `*_ru` are the same on Russian lemmas."""

    METRICS = {"f1": mean, "em": mean, "f1_ru": mean, "em_ru": mean}

    def gold(self, doc: Row) -> list[str]:
        """Return the gold answers."""
        golds = [str(answer["segment"]) for answer in doc["outputs"]]
        if not golds:
            raise ValueError("field 'outputs': no gold answer")
        return golds

    def target(self, doc: Row) -> str:
        """Return the first gold answer."""
        return self.gold(doc)[0]

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return the best match with a gold answer."""

        def top(measure: Callable[[list[str], list[str]], float], words: Callable[[str], list[str]]) -> float:
            return max(measure(words(answers[0].text), words(gold)) for gold in self.gold(doc))

        return Score(
            {
                "f1": top(f1, squad_words),
                "em": top(exact, squad_words),
                "f1_ru": top(f1, russian_words),
                "em_ru": top(exact, russian_words),
            },
            cluster=self.cluster(doc),
        )
