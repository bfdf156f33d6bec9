"""FLORES and other parallel sentences: a table or JSON lines with columns `ru` and `en`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darumeru.data.items import Item, hold_out, splits_of
from darumeru.data.raw import LINES, ImportOptions, Splits, files_of, records

_FLORES = (
    "Переведи с {input} языка на {output}:\n\n{input_text}\n\nНапиши один лишь перевод.",
    "Ниже предложение, его надо перевести с {input} языка на {output} точно и естественно, ничего не поясняя.\n\n"
    "{input_text}",
)


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `flores`: each pair once, for both directions."""
    items: list[Item] = []
    for raw in (raw for file in files_of(source, (*LINES, ".tsv")) for raw in records(file)):
        inputs = {lang: raw.text(lang) for lang in ("ru", "en")}
        meta: dict[str, Any] = {name: raw.row[name] for name in ("line", "doc") if name in raw.row}
        item = Item(_FLORES[len(items) % 2], inputs, "", "{translation}", meta, group=inputs["en"], prefix="Перевод:")
        items.append(item)
    return splits_of("flores", *hold_out(source, items, options.fewshot))
