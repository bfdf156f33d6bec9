"""RuTiE: a dialogue with two answers to each turn; earlier turns are the context, asked in both orders."""

from functools import cached_property

from darumeru.data.bundle import Row
from darumeru.requests import Message, Query
from darumeru.task import PairedChoiceTask, swapped


class Rutie(PairedChoiceTask):
    """A choice that must not depend on the order of the options and may depend on all earlier turns of its dialogue."""

    @cached_property
    def dialogues(self) -> dict[str, list[Row]]:
        """The turns of each dialogue, in order."""
        turns: dict[str, list[Row]] = {}
        rows = self.split(self.config.test_split).rows
        for row in sorted(rows, key=lambda r: int(r["meta"]["question_id"])):
            turns.setdefault(str(row["meta"]["dialog_id"]), []).append(row)
        return turns

    def cluster(self, doc: Row) -> str:
        """Return the dialogue: its turns are not independent."""
        return str(doc["meta"]["dialog_id"])

    def earlier(self, doc: Row) -> list[str]:
        """Return the turns before this one, each with its options and its right answer."""
        number = int(doc["meta"]["question_id"])
        return [
            f"{r['inputs']['question']}\n1. {r['inputs']['choice1']}\n2. {r['inputs']['choice2']}\nОтвет: {r['outputs']}"
            for r in self.dialogues[self.cluster(doc)]
            if int(r["meta"]["question_id"]) < number
        ]

    def queries(self, doc: Row) -> list[Query]:
        """Return both orders, with as many of the earlier turns as fit."""
        earlier = self.earlier(doc)

        def ask(row: Row) -> Query:
            def dropped(count: int) -> list[Message]:
                context = "\n".join(earlier[count:])
                return self.messages({**row, "inputs": {**row["inputs"], "context": context}})

            return Query(
                "choose",
                dropped(0),
                options=tuple(self.labels),
                droppable=len(earlier),
                dropped=dropped if earlier else None,
            )

        return [ask(doc), ask(swapped(doc))]
