"""Prompts of an arena: conversations that end with the user, from a JSONL or text file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import fingerprint, read_jsonl
from darumeru.requests import Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Prompt:
    """One prompt."""

    id: str
    """As the file calls it (`question_id` or `id`), else the number of its line."""
    messages: tuple[Message, ...]

    @property
    def text(self) -> str:
        """The prompt for a reader: the user's words, or the whole conversation with its roles."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in self.messages)

    def to_json(self) -> dict[str, Any]:
        """Return the prompt as a JSON object."""
        return {"id": self.id, "messages": list(self.messages)}


@dataclass(frozen=True)
class Prompts:
    """The prompts that were chosen of a file."""

    chosen: tuple[Prompt, ...]
    of: int
    """Number of different ones the file has."""
    repeated: int
    """Number of its lines that repeat an earlier one; they are left out, since they would count as new evidence."""


def read_prompts(path: Path, limit: int | None = None, seed: int = 0) -> Prompts:
    """Read prompts.

    A line of a `.jsonl` (or `.jsonl.gz`) file is an object with one of: `messages` (a conversation that ends with the user),
    `turns` (arena-hard: one `{"content"}`), `prompt` (a text or a conversation), `instruction` (with `input`, if there is
    one). A line of a `.txt` file is a prompt.

    Args:
        path: the file.
        limit: a seeded random sample of so many prompts, in the file's order.
        seed: of the sample.

    Raises:
        UserError: the file has no prompts, or a line is none.
    """
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            raise UserError(f"'{path}' does not exist.") from None
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"'{path}' cannot be read as UTF-8 text ({error}).") from None
        found = [Prompt(str(n), (_user(line.strip()),)) for n, line in enumerate(lines, start=1) if line.strip()]
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        found = list(_rows(path))
    else:
        raise UserError(f"Prompts file '{path}' is neither .jsonl (.jsonl.gz) nor .txt (a prompt a line).")
    if not found:
        raise UserError(f"Prompts file '{path}' holds no prompts.")
    first: dict[str, Prompt] = {}
    for prompt in found:
        first.setdefault(fingerprint(prompt.messages), prompt)
    distinct = list(first.values())
    chosen = distinct
    if limit is not None and limit < len(distinct):
        chosen = [distinct[i] for i in sorted(random.Random(f"{seed}:arena").sample(range(len(distinct)), limit))]
    return Prompts(tuple(chosen), len(distinct), len(found) - len(distinct))


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _rows(path: Path) -> Iterator[Prompt]:
    for number, row in read_jsonl(path):
        try:
            messages = _messages(row)
        except ValueError as error:
            raise UserError(f"'{path}', line {number}: {error}.") from None
        id_ = row.get("question_id", row.get("id"))
        yield Prompt(str(number if id_ is None else id_), tuple(messages))


def _messages(row: Any) -> list[Message]:
    """Return the conversation of a line.

    Raises:
        ValueError: it holds none; says why.
    """
    if not isinstance(row, dict):
        raise ValueError("not an object")
    for key in ("messages", "prompt"):
        if isinstance(row.get(key), list):
            return _conversation(row[key], key)
    if isinstance(row.get("turns"), list):
        if len(row["turns"]) != 1:
            raise ValueError(
                f"'turns' has {len(row['turns'])} entries, and only one can be answered; give a conversation as 'messages'"
            )
        return _conversation([{"role": "user"} | _object(row["turns"][0], "turns")], "turns")
    text = row.get("prompt", row.get("instruction"))
    if not isinstance(text, str):
        raise ValueError("none of 'prompt', 'messages', 'turns', 'instruction' with a text")
    given = row.get("input")
    if "prompt" not in row and isinstance(given, str) and given.strip():
        text = f"{text}\n\n{given}"
    return _conversation([_user(text)], "prompt")


def _conversation(messages: list[Any], key: str) -> list[Message]:
    done: list[Message] = []
    for message in messages:
        role, content = (_object(message, key).get(k) for k in ("role", "content"))
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(f"'{key}' needs entries with 'role' ({', '.join(ROLES)}) and 'content', a text")
        done.append({"role": role, "content": content})
    if not done or done[-1]["role"] != "user":
        raise ValueError(f"'{key}' has to end with a user's turn")
    if not done[-1]["content"].strip():
        raise ValueError("the prompt is empty")
    return done


def _object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"'{key}' has an entry that is no object")
    return value
