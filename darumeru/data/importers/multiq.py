"""MultiQ and data sets of SQuAD's form: a question answered with words of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from darumeru.data.bundle import Row
from darumeru.data.items import Item, hold_out, literal, splits_of
from darumeru.data.raw import LINES, ImportOptions, Raw, Splits, files_of, log_skipped, records
from darumeru.errors import UserError
from darumeru.files import read_json

_ONE_TEXT = (
    "Текст: {text}\n\nВопрос: {question}\nОтветьте коротко, словами из текста, как они в нём стоят, без пояснений.",
    "Найдите в тексте ответ на вопрос «{question}»\n\n{text}\n\n"
    "Выпишите только сам ответ, слово или несколько слов подряд.",
)
_TWO_TEXTS = (
    "Первый текст: {support_text}\n\nВторой текст: {text}\n\nВопрос: {question}\n"
    "Чтобы ответить, нужны оба текста. Выпишите ответ из второго, без пояснений.",
)


def read(source: Path, options: ImportOptions) -> Splits:
    """Return `multiq`; questions that the source marks as impossible are left out."""
    items, reasons = [], []
    for number, raw in enumerate(_qa_records(source)):
        if not raw.row.get("answers") and raw.row.get("is_impossible"):
            reasons.append("it has no answer in its text")
            continue
        items.append(_two_texts(raw) if "support_text" in raw.row else _one_text(raw, number))
    log_skipped(source, reasons)
    return splits_of("multiq", *hold_out(source, items, options.fewshot))


def _qa_records(source: Path) -> Iterator[Raw]:
    """The questions of JSON lines, or of SQuAD's JSON; in the latter a line is the question's number."""
    for file in files_of(source, (*LINES, ".json")):
        if file.suffix != ".json":
            yield from records(file)
            continue
        content = read_json(file)
        try:
            flat = [
                {**question, "context": paragraph["context"], "title": article.get("title", "")}
                for article in content["data"]
                for paragraph in article["paragraphs"]
                for question in paragraph["qas"]
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"'{file}' is not of SQuAD's form, data → paragraphs → context, qas ({error!r}).") from None
        for number, row in enumerate(flat, start=1):
            yield Raw(file, number, row)


def _one_text(raw: Raw, number: int) -> Item:
    context = raw.text("context")
    # A byte-order mark inside a file is no part of the text, but the offsets count it.
    shift = len(raw.row["context"]) - len(raw.row["context"].lstrip("\ufeff \n\t"))
    text = context.lstrip("\ufeff \n\t")
    found = [(answer.get("text"), answer.get("answer_start", -1)) for answer in _objects(raw, "answers")]
    outputs = _segments(raw, "answers", text, [(segment, offset - shift) for segment, offset in found])
    inputs = {"question": raw.text("question"), "support_text": "", "text": text}
    meta = {"source_id": str(raw.row.get("id", number))}
    answer = literal(outputs[0]["segment"])
    return Item(_ONE_TEXT[number % 2], inputs, outputs, answer, meta, group=text)


def _two_texts(raw: Raw) -> Item:
    text = raw.text("main_text")
    found = [(answer.get("segment"), answer.get("offset", -1)) for answer in _objects(raw, "main_answers")]
    outputs = _segments(raw, "main_answers", text, found)
    inputs = {"question": raw.text("question"), "support_text": raw.text("support_text"), "text": text}
    meta = {"bridge_answers": raw.row.get("bridge_answers", [])}
    return Item(_TWO_TEXTS[0], inputs, outputs, literal(outputs[0]["segment"]), meta, group=text)


def _objects(raw: Raw, name: str) -> list[dict[str, Any]]:
    value = raw.value(name)
    if not isinstance(value, list) or not value or not all(isinstance(answer, dict) for answer in value):
        raise raw.fault(name, f"must be a list of one or more objects, this is {value!r}")
    return value


def _segments(raw: Raw, name: str, text: str, answers: Sequence[tuple[Any, Any]]) -> list[Row]:
    """The gold answers with their place in the text; where the stated place is wrong, the first right one."""
    outputs: dict[str, Row] = {}
    for segment, offset in answers:
        if not isinstance(segment, str) or not segment.strip():
            raise raw.fault(name, f"an answer must be a text, this is {segment!r}")
        if not isinstance(offset, int) or text[max(0, offset) : max(0, offset) + len(segment)] != segment:
            offset = text.find(segment)
        if offset < 0:
            raise raw.fault(name, f"the answer '{segment}' is not in the text")
        row = {"label": "answer", "length": len(segment), "offset": offset, "segment": segment}
        outputs.setdefault(segment, row)
    return list(outputs.values())
