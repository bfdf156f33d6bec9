"""RWSD of Russian SuperGLUE: does a pronoun stand for a noun?"""

from __future__ import annotations

from pathlib import Path

from darumeru.data.items import Item, with_examples
from darumeru.data.raw import ImportOptions, Raw, Splits

_RWSD = (
    "Текст: {text}\nСловами «{span2_text}» сказано о том же, что названо «{span1_text}»?\n"
    "Ответьте одним словом, Да или Нет.",
    "Прочитайте текст.\n{text}\nВерно ли, что местоимение во фразе «{span2_text}» указывает на «{span1_text}»? "
    "Напишите только Да или Нет.",
)


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `rwsd`: test rows of `val`, examples of `train` or, without it, of texts that are held out."""
    labels = {"True": "Да", "true": "Да", "1": "Да", "False": "Нет", "false": "Нет", "0": "Нет"}

    def make(raw: Raw, number: int) -> Item:
        gold = raw.choice("label", labels)
        spans = {name: raw.text(f"target.{name}") for name in ("span1_text", "span2_text")}
        text = raw.text("text")
        return Item(_RWSD[number % 2], {"text": text, **spans}, gold, gold, {"idx": raw.row.get("idx")}, group=text)

    return with_examples(source, "rwsd", options, make)
