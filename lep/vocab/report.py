"""Vocabularies compared on texts: table, JSON and picture."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import regex

from darumeru.data.texts import read_all
from darumeru.errors import UserError
from darumeru.options import Option
from lep.measure.held_out import labelled
from lep.model.manifest import added_ids, read_manifest
from lep.options import Field
from lep.tokenizer.vocabulary import SPACE, Vocabulary
from lep.tokenizer.words import count_tokens

_WORDS = regex.compile(r"[\p{L}\p{M}]+")
_LIMIT = 20_000_000


@dataclass(frozen=True)
class Row:
    """One tokenizer on one text.

    Attributes:
        tokenizer: name of its folder.
        text: the text's label.
        tokens: tokens of the whole text.
        symbols_per_token: characters / tokens.
        tokens_per_word: tokens / words, a word being a run of letters and marks (fertility).
        bytes_per_token: UTF-8 bytes / tokens.
        one_token_words: share of word occurrences that are one token after a space.
        not_nfc: characters that Unicode's composed form (NFC) would change; they split words in many tokenizers.
        new_tokens_used: tokens that `lep vocab` added and the text uses, of `new_tokens`.
        new_tokens: tokens that `lep vocab` added.
    """

    tokenizer: str
    text: str
    tokens: int
    symbols_per_token: float
    tokens_per_word: float
    bytes_per_token: float
    one_token_words: float
    not_nfc: int
    new_tokens_used: int
    new_tokens: int


@dataclass(frozen=True)
class Report:
    """All rows, and for each tokenizer its longest and strangest tokens."""

    rows: list[Row]
    longest: dict[str, list[str]]
    strangest: dict[str, list[str]]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "longest": self.longest,
            "strangest": self.strangest,
        }


LabelledTexts = Annotated[Sequence[str], Option("Texts: FILE or LABEL=FILE.", flag="--text", many="spread")]


def report_vocabularies(models: Sequence[str | Path], texts: LabelledTexts, *, field: Field = "text") -> Report:
    """Measure tokenizers on texts.

    Args:
        models: model or tokenizer folders, or hub ids.
        texts: files, each as `path` or `label=path`; files with one label are one text.

    Raises:
        UserError: a text without words, or one that cannot be read.
    """
    sources: dict[str, list[str]] = {}
    for text in texts:
        label, path = labelled(text)
        sources.setdefault(label, []).append(path)
    documents = {label: read_all(paths, field=field, limit=_LIMIT) for label, paths in sources.items()}
    rows: list[Row] = []
    longest: dict[str, list[str]] = {}
    strangest: dict[str, list[str]] = {}
    for model in models:
        vocabulary = Vocabulary.load(model)
        name = Path(model).name if Path(model).exists() else str(model)
        if name in longest:
            name = str(model)
        new = _new_tokens(vocabulary)
        rows += [_measure(name, label, vocabulary, parts, new) for label, parts in documents.items()]
        longest[name], strangest[name] = _curious(vocabulary, new)
    return Report(rows, longest, strangest)


def picture(report: Report) -> str:
    """Symbols per token of every tokenizer and text as an SVG bar chart; names are escaped."""
    labels = list(dict.fromkeys(row.text for row in report.rows))
    names = list(dict.fromkeys(row.tokenizer for row in report.rows))
    colours = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab0ac"]
    largest = max(row.symbols_per_token for row in report.rows)
    bar, gap, left, width = 18, 14, 230, 420
    height = len(labels) * (len(names) * bar + gap) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="Symbols per token">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-weight="bold">Symbols per token (longer is better)</text>',
    ]
    y = 36
    for label in labels:
        for number, name in enumerate(names):
            row = next(r for r in report.rows if r.text == label and r.tokenizer == name)
            length = width * row.symbols_per_token / largest
            caption = html.escape(f"{label} · {name}" if len(labels) > 1 else name)
            parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{caption}</text>')
            parts.append(
                f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{bar - 4}" '
                f'fill="{colours[number % len(colours)]}"/>'
            )
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 13}">{row.symbols_per_token:.2f}</text>')
            y += bar
        y += gap
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _measure(name: str, label: str, vocabulary: Vocabulary, texts: Sequence[str], new: set[int]) -> Row:
    words: dict[str, int] = {}
    for text in texts:
        for word in _WORDS.findall(text):
            words[word] = words.get(word, 0) + 1
    total_words = sum(words.values())
    if not total_words:
        raise UserError(f"The text {label!r} holds no words.")
    counts = count_tokens(texts, vocabulary)
    tokens = int(counts.sum())
    # Some tokenizers put the space before a text themselves (Llama 2), others want it written (Gemma).
    begun = vocabulary.tokenizer.encode("a", add_special_tokens=False).tokens
    spaced = "" if begun and begun[0].startswith(SPACE) else " "
    encoded = vocabulary.tokenizer.encode_batch_fast([spaced + word for word in words], add_special_tokens=False)
    single = sum(count for item, count in zip(encoded, words.values(), strict=True) if len(item.ids) == 1)
    used = int((counts[sorted(new)] > 0).sum()) if new else 0
    return Row(
        name,
        label,
        tokens,
        sum(map(len, texts)) / tokens,
        tokens / total_words,
        sum(len(text.encode()) for text in texts) / tokens,
        single / total_words,
        sum(_not_composed(text) for text in texts),
        used,
        len(new),
    )


def _not_composed(text: str) -> int:
    import unicodedata

    if unicodedata.is_normalized("NFC", text):
        return 0
    composed = unicodedata.normalize("NFC", text)
    return abs(len(text) - len(composed)) or sum(a != b for a, b in zip(text, composed, strict=True))


def _new_tokens(vocabulary: Vocabulary) -> set[int]:
    """Ids that the last `lep vocab` command added, told by its manifest: the highest ones (`extend`, `optimize`)."""
    return set(added_ids(read_manifest(vocabulary.folder))) if vocabulary.folder is not None else set()


def _curious(vocabulary: Vocabulary, new: set[int], number: int = 12) -> tuple[list[str], list[str]]:
    """The longest tokens, and the strangest: mixed scripts, or bytes that are no text; new ones where there are any."""
    chosen = new or {index for index in vocabulary.strings if index not in vocabulary.added}
    texts = {index: vocabulary.bytes_of(index) for index in sorted(chosen)}
    longest = sorted(texts, key=lambda index: (-len(texts[index].decode(errors="replace")), index))[:number]
    odd: list[tuple[int, int]] = []
    for index, data in texts.items():
        text = data.decode(errors="replace")
        scripts = {bool(regex.search(p, text)) and p for p in (r"\p{Latin}", r"\p{Cyrillic}", r"\p{N}", r"\p{P}")}
        strangeness = len(scripts - {False}) - 1 + 2 * ("�" in text and len(data) > 1)
        if strangeness > 0:
            odd.append((-strangeness, index))
    strange = [index for _, index in sorted(odd)[:number]]
    return [_shown(texts[index]) for index in longest], [_shown(texts[index]) for index in strange]


def _shown(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return str(data)[2:-1]


def id_ranges(ids: Sequence[int]) -> list[list[int]]:
    """Ids as a short list of [first, last] ranges, for a manifest."""
    if not ids:
        return []
    numbers = np.sort(np.array(ids))
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    firsts = numbers[np.concatenate([[0], breaks + 1])]
    lasts = numbers[np.concatenate([breaks, [len(numbers) - 1]])]
    return [[int(a), int(b)] for a, b in zip(firsts, lasts, strict=True)]
