"""Prompts, and answers where they come with some, from the files that instruction data is kept in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from lep.calibration.chat import messages_of

if TYPE_CHECKING:
    from darumeru.requests import Message

_FORMS = "'messages', 'turns', 'instruction' (with 'input', 'output', 'instances') or 'prompt' (with 'output')"


@dataclass(frozen=True)
class Prompt:
    """A conversation up to the user's last turn, and the answer to it, where there is one."""

    messages: tuple[Message, ...]
    answer: str | None = None
    """Without its thought."""

    @property
    def text(self) -> str:
        """Return all that the user says."""
        return "\n\n".join(m["content"] for m in self.messages if m["role"] == "user")

    @property
    def key(self) -> str:
        """Equal for prompts that say the same, up to case and white space."""
        said = "\0".join(f"{m['role']}\0{' '.join(m['content'].lower().split())}" for m in self.messages)
        return hashlib.sha256(said.encode()).hexdigest()


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Yield the prompts of a file.

    A row of a `.jsonl` file (also `.gz`) has `messages`; or `turns` with `content` (the Arena-Hard form; the first turn is
    taken); or `instruction` with `input` and `output`, of its own or in `instances` (the Alpaca forms; the first instance is
    taken); or `prompt` with `output`. A line of a `.txt` file is a prompt.

    Raises:
        UserError: the file is missing or has another ending, or a row another form.
    """
    from darumeru.files import read_jsonl

    name = path.name.removesuffix(".gz")
    if not path.is_file():
        raise UserError(f"There is no prompts file {path}.")
    if name.endswith(".txt") and name == path.name:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not UTF-8 (byte {error.start}). Convert it first, for example with iconv."
            ) from None
        yield from (Prompt((_user(line.strip()),)) for line in lines if line.strip())
    elif name.endswith((".jsonl", ".ndjson", ".json")):
        for number, row in read_jsonl(path):
            yield _prompt(row, f"{path}, line {number}")
    else:
        raise UserError(f"{path} has an unknown ending; prompts are .jsonl (also .gz) or .txt.")


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _prompt(row: Any, where: str) -> Prompt:
    if not isinstance(row, dict):
        raise UserError(f"{where}: a row is an object with {_FORMS}.")
    if "messages" in row:
        messages = messages_of(row, where)
        users = [index for index, message in enumerate(messages) if message["role"] == "user"]
        if not users:
            raise UserError(f"{where}: no message has the role user.")
        asked = messages[: users[-1] + 1]
        rest = messages[users[-1] + 1 :]
        answered = bool(rest) and rest[0]["role"] == "assistant"
        return Prompt(tuple(asked), without_thought(rest[0]["content"]) if answered else None)
    if isinstance(row.get("turns"), list) and row["turns"] and isinstance(row["turns"][0], dict):
        return Prompt((_user(_text(row["turns"][0], "content", where)),))
    if "instruction" in row:
        instances = row.get("instances")
        inner = instances[0] if isinstance(instances, list) and instances and isinstance(instances[0], dict) else row
        parts = [_text(row, "instruction", where), str(inner.get("input") or "").strip()]
        return Prompt((_user("\n\n".join(part for part in parts if part)),), _answer(inner))
    if isinstance(row.get("prompt"), str):
        return Prompt((_user(_text(row, "prompt", where)),), _answer(row))
    raise UserError(f"{where}: a row is an object with {_FORMS}; this one has {', '.join(row) or 'nothing'}.")


def _text(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: the field {key!r} must be a text.")
    return value.strip()


def _answer(row: dict[str, Any]) -> str | None:
    value = row.get("output")
    return without_thought(value.strip()) if isinstance(value, str) and value.strip() else None


def without_thought(answer: str) -> str | None:
    """Return an answer of a data set without the thought before it, as most write it; None where nothing else is there.

    >>> without_thought("<think>Вежливо.</think> Хорошо."), without_thought("<think>Вежли")
    ('Хорошо.', None)
    """
    _, closed, behind = answer.rpartition("</think>")
    if closed:
        return behind.strip() or None
    return None if answer.lstrip().startswith("<think>") else answer
