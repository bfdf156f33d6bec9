"""Chat examples: read from JSON lines, rendered with the model's own template, the loss on the assistant's tokens.

Few templates mark what the assistant says (`{% generation %}`), so it is found by rendering: what the conversation
gains between the prompt that asks for a turn and the same conversation with that turn in it. Both must be beginnings of
the whole, token by token; then the model is trained on exactly the tokens that it is prompted with later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darumeru.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from darumeru.inference.prompt import Prompter
    from darumeru.requests import Message

Reason = Literal["template", "no_answer", "too_long"]
"""Why an example is left out: its rendering does not grow turn by turn, nothing to learn in it, or too many tokens."""

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Example:
    """A conversation in tokens."""

    ids: NDArray[np.int32]
    """(tokens,)"""
    trained: NDArray[np.bool_]
    """(tokens,) whether the loss counts the token: it belongs to an assistant's turn, the token that ends it included."""


def read_chats(path: Path) -> Iterator[list[Message]]:
    """Yield the conversations of a JSON lines file, field `messages`.

    Raises:
        UserError: the file is missing, or a line is no such conversation.
    """
    from darumeru.files import read_jsonl

    for number, row in read_jsonl(path):
        yield messages_of(row, f"{path}, line {number}")


def messages_of(row: Any, where: str) -> list[Message]:
    """Return the field `messages` of a row, checked; `where` goes into the error.

    Raises:
        UserError: there is no such field, or it is no conversation.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise UserError(
            f'{where}: there is no list \'messages\'. An example is {{"messages": [{{"role", "content"}}]}}.'
        )
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise UserError(f"{where}: the role of a message must be one of {', '.join(ROLES)}.")
        if not isinstance(message.get("content"), str):
            raise UserError(f"{where}: the content of a message must be a text.")
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def render(prompter: Prompter, messages: Sequence[Message], ends: frozenset[int], max_length: int) -> Example | Reason:
    """Return a conversation in tokens, or why it is left out.

    Args:
        prompter: the model's tokenizer with its chat template.
        messages: the conversation; turns behind the assistant's last one do not count.
        ends: token ids that end a turn; what the template puts behind them is never generated, so it is not learned.
        max_length: the most tokens.
    """
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[0] == 0 or not any(messages[index]["content"].strip() for index in turns):
        return "no_answer"
    texts = [
        text
        for index in turns
        for text in (prompter.render(messages[:index]), prompter.finished(messages[: index + 1]))
    ]
    encoded = prompter.encode(texts)
    whole = encoded[-1]
    trained = np.zeros(len(whole), dtype=np.bool_)
    for before, after in zip(encoded[::2], encoded[1::2], strict=True):
        if whole[: len(before)] != before or whole[: len(after)] != after or len(after) <= len(before):
            return "template"
        last = [index for index in range(len(before), len(after)) if after[index] in ends]
        trained[len(before) : (last[-1] + 1 if last else len(after))] = True
    if len(whole) > max_length:
        return "too_long"
    return Example(np.array(whole, dtype=np.int32), trained)


def render_all(
    prompter: Prompter, chats: Iterator[list[Message]], ends: frozenset[int], max_length: int
) -> tuple[list[Example], dict[str, int]]:
    """Return all examples that can be trained on, and how many were left out for which reason.

    Raises:
        UserError: none can, with the reasons.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for messages in chats:
        found = render(prompter, messages, ends, max_length)
        if isinstance(found, Example):
            examples.append(found)
        else:
            left_out[found] += 1
    if not examples:
        meanings = {
            "template": f"{left_out['template']} that the chat template does not render turn by turn",
            "no_answer": f"{left_out['no_answer']} without an answer",
            "too_long": f"{left_out['too_long']} of more than {max_length} tokens",
        }
        reasons = [meaning for reason, meaning in meanings.items() if left_out[reason]]
        raise UserError(f"There is no example to train on: {'; '.join(reasons) or 'the file is empty'}.")
    return examples, dict(left_out)
