"""PARus of Russian SuperGLUE: a premise and two possible causes or effects."""

from __future__ import annotations

from pathlib import Path

from darumeru.data.items import Item, with_examples
from darumeru.data.raw import ImportOptions, Raw, Splits

_PARUS = {
    "cause": (
        "Ситуация: {premise}\nЧто из этого вероятнее всего к ней привело?\n1. {choice1}\n2. {choice2}\n"
        "Назовите номер ответа, 1 или 2, и больше ничего.",
        "Произошло вот что: {premise}\nОдно из двух предложений объясняет почему.\n1. {choice1}\n2. {choice2}\n"
        "Какое? Напишите одну цифру: 1 или 2.",
    ),
    "effect": (
        "Ситуация: {premise}\nЧто из этого вероятнее всего случилось вследствие неё?\n1. {choice1}\n2. {choice2}\n"
        "Назовите номер ответа, 1 или 2, и больше ничего.",
        "Произошло вот что: {premise}\nОдно из двух предложений говорит, что было дальше из-за этого.\n"
        "1. {choice1}\n2. {choice2}\nКакое? Напишите одну цифру: 1 или 2.",
    ),
}


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `parus`: test rows of `val`, examples of `train` or, without it, of texts that are held out."""

    def make(raw: Raw, number: int) -> Item:
        wordings = raw.choice("question", dict(_PARUS))
        gold = raw.choice("label", {"0": "1", "1": "2"})
        inputs = {name: raw.text(name) for name in ("premise", "choice1", "choice2")}
        meta = {"task": raw.text("question"), "idx": raw.row.get("idx")}
        return Item(wordings[number % 2], inputs, gold, gold, meta, group=inputs["premise"])

    return with_examples(source, "parus", options, make)
