"""Examples of writing a text on: text of a language in the chat template, with a turn that ends where the text does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lep.tokenizer.scripts import count_script

if TYPE_CHECKING:
    from darumeru.requests import Message

_SHARES = (0.2, 0.5)
"""Between these shares of a text its beginning ends."""

_SENTENCE = re.compile(r"[.!?…]+[»”\"')]*\s+|\n+")

_RUSSIAN = (
    "Продолжи текст с того места, где он обрывается, и доведи его до конца.\n\n{text}",
    "Ниже стоит начало текста. Напиши, что идёт дальше; начало повторять не нужно.\n\n{text}",
    "{text}\n\n---\nДопиши этот текст в том же духе.",
)
_ENGLISH = (
    "Go on with this text from where it breaks off, and bring it to its end.\n\n{text}",
    "A text begins below. Write what comes next; do not repeat the beginning.\n\n{text}",
    "{text}\n\n---\nWrite this text on in the same manner.",
)


def continuation_example(text: str, number: int) -> list[Message]:
    """Return the conversation in which text number `number` is written on; in Russian where it is mostly Cyrillic.

    The beginning that the user gives ends with a sentence or a line, if one ends between a fifth and a half of the text, else
    with a word, else in the middle; the assistant's turn is all that follows.
    """
    first, last = (round(share * len(text)) for share in _SHARES)
    ends = [match.end() for match in _SENTENCE.finditer(text, 0, last) if match.end() > first]
    place = ends[-1] if ends else text.rfind(" ", first, last) + 1 or last
    cyrillic, latin = count_script(text, ("Cyrillic",)), count_script(text, ("Latin",))
    wordings = _RUSSIAN if cyrillic > latin else _ENGLISH
    asked = wordings[number % len(wordings)].replace("{text}", text[:place].rstrip())
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": text[place:].lstrip()}]
