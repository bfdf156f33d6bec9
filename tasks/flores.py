"""Translation between Russian and English, the direction being the task's name."""

from collections.abc import Sequence
from typing import Any

from darumeru.data.bundle import Row
from darumeru.requests import Answer, Message
from darumeru.scoring.aggregate import mean
from darumeru.scoring.text import rouge
from darumeru.task import GenerateTask, Score

_WORDS = {"ru": ("русского", "русский"), "en": ("английского", "английский")}


class Flores(GenerateTask):
    """ROUGE-L F on lemmas, the measure of the reference framework."""

    METRICS = {"rougeL_f1": mean, "rouge1_f1": mean}

    @property
    def direction(self) -> tuple[str, str]:
        """Source and target language."""
        source, target = self.name.rsplit("_", 2)[-2:]
        return source, target

    def fields(self, doc: Row) -> dict[str, Any]:
        """Return the names that the data set's templates use: languages, source and translation."""
        source, target = self.direction
        texts = doc["inputs"]
        return {
            **super().fields(doc),
            "input": _WORDS[source][0],
            "output": _WORDS[target][1],
            "input_text": texts[source],
            "translation": texts[target],
        }

    def messages(self, doc: Row, with_answer: bool = False) -> list[Message]:
        """Return the row's turns; an example whose last turn does not hold the translation gets it right behind the turn's text.

        So does the reference: whether a space or a line break stands between is the data set's to say.
        """
        turns = super().messages(doc, with_answer)
        last = turns[-1]
        if with_answer and last["role"] == "assistant" and self.gold(doc) not in last["content"]:
            turns[-1] = {"role": "assistant", "content": last["content"] + self.gold(doc)}
        return turns

    def gold(self, doc: Row) -> str:
        """Return the reference translation."""
        return str(doc["inputs"][self.direction[1]])

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return ROUGE of the translation."""
        scores = rouge(self.gold(doc), answers[0].text)
        return Score({name: scores[name] for name in self.METRICS}, cluster=self.cluster(doc))
