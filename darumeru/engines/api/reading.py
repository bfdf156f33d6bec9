"""Readers of a server's answer: log-probabilities, token ids, counts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from darumeru.errors import DarumeruError

_TOKEN_ID = re.compile(r"token_id:(\d+)")


def logprob(value: Any) -> float:
    """Return a log-probability out of an answer.

    Raises:
        DarumeruError: it can be none.
    """
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if math.isnan(number) or number > 1e-3:
        raise DarumeruError(
            f"The server gives {value!r} as a log-probability. If it is vLLM's, start it without --logprobs-mode (logits are "
            "no log-probabilities). The answers so far are kept."
        )
    return number


def usage(answer: dict[str, Any], what: str) -> int | None:
    """Return a count out of an answer's `usage`, such as `prompt_tokens`, if it is there."""
    count = (answer.get("usage") or {}).get(what)
    return count if isinstance(count, int) else None


def first_tops(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the most probable (or wanted) first tokens of a completion."""
    rows = (choice.get("logprobs") or {}).get("top_logprobs")
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}


def chat_tops(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the most probable first tokens of a chat answer."""
    rows = (choice.get("logprobs") or {}).get("content")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    return [(str(t["token"]), logprob(t["logprob"])) for t in first.get("top_logprobs") or []]


def generated_ids(choice: dict[str, Any]) -> list[int] | None:
    """Return the ids of the generated tokens, if they are told."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
        return ids
    names = (choice.get("logprobs") or {}).get("tokens")
    if not isinstance(names, list):
        return None
    matches = [_TOKEN_ID.fullmatch(str(n)) for n in names]
    return [int(m[1]) for m in matches if m] if all(matches) else None


def content(choice: dict[str, Any]) -> str:
    """Return the text of an answer."""
    text = choice.get("text")
    if text is None:
        text = (choice.get("message") or {}).get("content")
    return _written(text) if isinstance(text, str) else ""


def _written(text: str) -> str:
    """Return a text that can be written as UTF-8: JSON may hold halves of characters (a lone \\ud83d), which become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def reasoning(choice: dict[str, Any]) -> str:
    """Return the thought of a chat answer, if the server tells it apart: `reasoning` (vLLM) or `reasoning_content` (others)."""
    message = choice.get("message") or {}
    found = (message.get(key) for key in ("reasoning", "reasoning_content"))
    return next((_written(text) for text in found if isinstance(text, str) and text), "")


def chat_tops_behind(choice: dict[str, Any], end: str) -> list[tuple[str, float]] | None:
    """Return the most probable first tokens behind a thought that ends with the token `end`; None if it did not end."""
    rows = (choice.get("logprobs") or {}).get("content") or []
    ends = [place for place, row in enumerate(rows) if str(row.get("token")).strip() == end.strip()]
    for row in rows[ends[0] + 1 :] if ends else []:
        if str(row.get("token")).strip():
            return chat_tops({"logprobs": {"content": [row]}})
    return None


def echo_rows(choice: dict[str, Any], length: int, tail: int) -> list[tuple[float, bool]]:
    """Return for the last `tail` tokens of a repeated prompt of `length`: log-probability, and whether it is the highest.

    Raises:
        DarumeruError: they are not there.
    """
    logprobs = choice.get("logprobs") or {}
    values, tops = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    if not isinstance(values, list) or len(values) != length or not isinstance(tops, list) or len(tops) != length:
        raise DarumeruError("The server does not repeat the prompt's tokens with their log-probabilities.")
    found = []
    for value, top in zip(values[-tail:], tops[-tail:], strict=True):
        number = logprob(value)
        found.append((number, number >= max((logprob(v) for v in (top or {}).values()), default=number)))
    return found


def at_most(tops: Iterable[float]) -> float:
    """Return the highest log-probability that a token can have that is not among the most probable ones."""
    values = list(tops)
    rest = 1.0 - sum(math.exp(v) for v in values)
    return min(*values, math.log(rest)) if rest > 0 and values else min(values, default=-math.inf)
