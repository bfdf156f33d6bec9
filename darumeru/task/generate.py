"""Tasks in which the model writes a text."""

from __future__ import annotations

from typing import ClassVar

from darumeru.data.bundle import Row
from darumeru.requests import Query
from darumeru.scoring.aggregate import Aggregate, mean
from darumeru.task.base import DarumeruTask


class GenerateTask(DarumeruTask):
    """The model writes a text."""

    METRICS: ClassVar[dict[str, Aggregate]] = {"score": mean}

    def queries(self, doc: Row) -> list[Query]:
        """Return one request for a text."""
        return [
            Query(
                "generate",
                self.messages(doc),
                self.headline(doc),
                max_tokens=int((self.config.generation_kwargs or {})["max_gen_toks"]),
                until=self.options.until,
                reference=self.reference(doc),
            )
        ]

    def reference(self, doc: Row) -> str | None:
        """Return a text whose length in the model's tokens the score needs."""
        return None
