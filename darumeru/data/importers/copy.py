"""Any corpus → texts to copy: sentences and paragraphs, drawn at random."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Iterator
from pathlib import Path

from darumeru.data.items import Item, splits_of
from darumeru.data.raw import LINES, ImportOptions, Splits, files_of, records, squeezed
from darumeru.errors import UserError
from darumeru.files import fingerprint

_log = logging.getLogger(__name__)

_COPY_RU = (
    "Перепиши этот текст без изменений, знак в знак, и ничего к нему не добавляй.\n\n{text}",
    "Вот текст:\n\n{text}\n\nНапиши его ещё раз точно таким же. Больше ничего писать не надо.",
)
_COPY_EN = (
    "Copy this text without any change, character by character, and add nothing to it.\n\n{text}",
    "Here is a text:\n\n{text}\n\nWrite it once more, exactly as it is. Write nothing else.",
)
_SENTENCE_WORDS = range(8, 41)
_PARAGRAPH_WORDS = range(60, 201)
_SHORTENED = re.compile(
    "[^\\W_]|гг|вв|др|пр|руб|коп|им|ул|стр|см|напр|ок|тыс|млн|млрд|обл|гр|проф|акад|св"
    "|mrs?|ms|dr|st|prof|vs|etc|no|vol|fig|jr|sr|capt|col|gen",
    re.IGNORECASE,
)
"""Words whose full stop ends no sentence: single letters and abbreviations."""
_END = re.compile(r"[.!?…。！？।؟]+[\"»”’')\]]*\s+(?=[\"«“„‘'(\[—–-]*\s*([^\W_]))")
_ENTITY = re.compile(r"&#?\w+;|[\x00-\x08\x0b-\x1f\x7f\ufffd]|https?:")


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `cp_sent_<lang>` and `cp_para_<lang>`: a seeded uniform sample of clean sentences and paragraphs."""
    sentences = _Reservoir(options.rows + options.fewshot, f"{options.seed}:{options.lang}:sent")
    paragraphs = _Reservoir(options.rows + options.fewshot, f"{options.seed}:{options.lang}:para")
    for paragraph in (p for text in _texts(source) for p in paragraphs_of(text)):
        if len(paragraph.split()) in _PARAGRAPH_WORDS and _is_clean(paragraph):
            paragraphs.offer(paragraph)
        for sentence in sentences_of(paragraph):
            if len(sentence.split()) in _SENTENCE_WORDS and _is_clean(sentence):
                sentences.offer(sentence)
    splits: Splits = {}
    kinds = {"sent": ("sentences of 8 to 40 words", sentences), "para": ("paragraphs of 60 to 200 words", paragraphs)}
    wordings = _COPY_RU if options.lang == "ru" else _COPY_EN
    for name, (what, reservoir) in kinds.items():
        texts = reservoir.shuffled()
        if len(texts) <= options.fewshot:
            _log.warning("%s: %d %s, too few for cp_%s_%s.", source, len(texts), what, name, options.lang)
            continue
        if len(texts) < options.rows + options.fewshot:
            _log.warning("%s: %d %s instead of %d.", source, len(texts), what, options.rows + options.fewshot)
        items = [
            Item(wordings[number % 2], {"text": text}, text, "{text}", prefix="") for number, text in enumerate(texts)
        ]
        splits |= splits_of(f"cp_{name}_{options.lang}", items[options.fewshot :], items[: options.fewshot])
    if not splits:
        raise UserError(
            f"'{source}' has too few texts to copy: more than {options.fewshot} whole sentences of 8 to 40 words, or "
            "paragraphs of 60 to 200, are needed (words are what stands between spaces)."
        )
    return splits


def _texts(source: Path) -> Iterator[str]:
    """Yield the texts of a corpus: of plain text files, and field `text` of JSON lines."""
    for file in files_of(source, (*LINES, ".txt")):
        if file.suffix == ".txt":
            try:
                yield file.read_text(encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise UserError(f"'{file}' is not UTF-8 text ({error}).") from None
        else:
            for raw in records(file):
                if not isinstance(raw.value("text"), str):
                    raise raw.fault("text", f"must be a text, this is {raw.row['text']!r}")
                yield raw.row["text"]


def paragraphs_of(text: str) -> list[str]:
    """Return the paragraphs of a text: what stands between blank lines or, where it has none, between line ends.

    >>> paragraphs_of("Одна строка\\nи её конец.\\n\\nВторой абзац.")
    ['Одна строка и её конец.', 'Второй абзац.']
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "").strip()
    parts = re.split(r"\n\s*\n", text)
    if len(parts) == 1:
        parts = text.split("\n")
    return [squeezed for part in parts if (squeezed := " ".join(part.split()))]


def sentences_of(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph; no cut after initials and common abbreviations.

    >>> sentences_of("Роман А. С. Иванова вышел в 1900 г. в Москве. Его ждали!")
    ['Роман А. С. Иванова вышел в 1900 г. в Москве.', 'Его ждали!']
    """
    sentences, start = [], 0
    for match in _END.finditer(paragraph):
        before = re.search(r"(\w+)\W*$", paragraph[start : match.start()])
        word = before[1] if before else ""
        is_short = match[0].startswith(".") and _SHORTENED.fullmatch(word) is not None
        continues = match[1].islower()  # «— Да! — сказал он»
        if not (is_short or continues):
            sentences.append(paragraph[start : match.end()].strip())
            start = match.end()
    return [*sentences, paragraph[start:].strip()]


def _is_clean(text: str) -> bool:
    """Return whether a text is whole: it begins like a sentence, ends like one, and closes what it opens."""
    begins = text.lstrip("\"«“„‘'(—–- ")[:1]
    return (
        begins.isalnum()
        and not begins.islower()
        and text.rstrip("\"»”’')]")[-1:] in tuple(".!?…。！？।؟")
        and all(text.count(a) == text.count(b) for a, b in ("()", "«»", "[]", "“”"))
        and text.count('"') % 2 == 0
        and not _ENTITY.search(text)
    )


class _Reservoir:
    """A uniform sample of different texts, drawn in one pass (algorithm R), so that a corpus need not fit in memory."""

    def __init__(self, size: int, seed: str) -> None:
        self.size = size
        self.random = random.Random(seed)
        self.kept: list[str] = []
        self.seen: set[int] = set()

    def offer(self, text: str) -> None:
        """Take part in the draw, unless the same text (but for case and spaces) already has."""
        key = int(fingerprint(squeezed(text))[:16], 16)
        if key in self.seen:
            return
        self.seen.add(key)
        if len(self.kept) < self.size:
            self.kept.append(text)
        elif (place := self.random.randrange(len(self.seen))) < self.size:
            self.kept[place] = text

    def shuffled(self) -> list[str]:
        """Return the sample in random order."""
        return self.random.sample(self.kept, len(self.kept))
