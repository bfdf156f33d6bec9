"""Chat examples: read from JSON lines, rendered with the model's own template, the loss on the assistant's tokens.

Few templates mark what the assistant says (`{% generation %}`), so it is found by rendering: what the conversation
gains between the prompt that asks for a turn and the same conversation with that turn in it. Both must be beginnings of
the whole, token by token; then the model is trained on exactly the tokens that it is prompted with later.

Where the template can switch thinking, a turn with a thought is asked for with thinking on, one without with thinking off: the
mark of an empty thought that such templates put before an answer belongs to the prompt and is not learned, so that a model that
is asked to think still does. Such templates drop thoughts out of earlier turns, so each turn becomes an example of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darumeru.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from darumeru.inference.prompt import Prompter
    from darumeru.requests import Message

Reason = Literal["template", "thought", "no_answer", "too_long"]
"""Why an example is left out: its rendering does not grow turn by turn or the template refuses it, it has a thought that the
template does not write, nothing to learn in it, or too many tokens."""

ROLES = ("system", "user", "assistant")
THOUGHT = "reasoning_content"
"""The key of an assistant's turn that holds its thought."""
_THOUGHTS = (THOUGHT, "reasoning", "thinking")
"""What templates call it."""


@dataclass(frozen=True)
class Example:
    """A conversation in tokens."""

    ids: NDArray[np.int32]
    """(tokens,)"""
    trained: NDArray[np.bool_]
    """(tokens,) whether the loss counts the token: it belongs to an assistant's turn, the token that ends it included."""


@dataclass(frozen=True)
class Writers:
    """Writers of a model's turns."""

    plain: Prompter
    """Of turns without a thought; with thinking off, where the template can switch it."""
    thinking: Prompter | None
    """Of turns with a thought; None where the template knows none."""

    @classmethod
    def of(cls, tokenizer: Any, max_length: int) -> Writers:
        """Return the writers for a tokenizer with a chat template."""
        from darumeru.inference.prompt import Limits, Prompter
        from darumeru.inference.thinking import PLAIN, Style, style_of
        from darumeru.settings import ThinkingSettings

        def style(thinking: Literal["off", "on"]) -> Style | None:
            try:
                found = style_of(tokenizer, ThinkingSettings(thinking=thinking))
            except UserError:
                return None
            # What opens a thought is the model's to write.
            return replace(found, opening="") if found.thinks else found

        limits, on = Limits(max_length, None), style("on")
        plain = Prompter(tokenizer, "instruct", limits, style("off") or PLAIN)
        return cls(plain, Prompter(tokenizer, "instruct", limits, on) if on else None)

    def of_turn(self, message: Message) -> Prompter | None:
        """Return what writes an assistant's turn; None where the template cannot."""
        return self.thinking if message.get(THOUGHT) else self.plain


def read_chats(path: Path) -> Iterator[list[Message]]:
    """Yield the conversations of a JSON lines file, field `messages`; a turn of the assistant may have a `reasoning_content`.

    Raises:
        UserError: the file is missing, or a line is no such conversation.
    """
    from darumeru.files import read_jsonl

    for number, row in read_jsonl(path):
        yield messages_of(row, f"{path}, line {number}", thoughts=True)


def messages_of(row: Any, where: str, thoughts: bool = False) -> list[Message]:
    """Return the field `messages` of a row, checked; `where` goes into the error. Thoughts are left out, or kept with `thoughts`.

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
        if not isinstance(message.get(THOUGHT) or "", str):
            raise UserError(f"{where}: the thought of a message, '{THOUGHT}', must be a text.")
    return [_message(m, thoughts) for m in messages]


def _message(given: Mapping[str, Any], thoughts: bool) -> Message:
    thought = given.get(THOUGHT) if thoughts and given["role"] == "assistant" else None
    return {"role": given["role"], "content": given["content"]} | ({THOUGHT: thought} if thought else {})


def render(
    writers: Writers, messages: Sequence[Message], ends: frozenset[int], max_length: int
) -> list[Example | Reason]:
    """Return a conversation in tokens, or why it is left out; several where each turn is an example of its own.

    Args:
        writers: of the model's turns.
        messages: the conversation; turns behind the assistant's last one do not count.
        ends: token ids that end a turn; what the template puts behind them is never generated, so it is not learned.
        max_length: the most tokens.
    """
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[0] == 0 or not any(messages[index]["content"].strip() for index in turns):
        return ["no_answer"]
    whole = _render(writers, messages, turns, ends, max_length)
    if isinstance(whole, Example) or len(turns) == 1 or whole == "too_long":
        return [whole]
    return [_render(writers, messages, [turn], ends, max_length) for turn in turns if messages[turn]["content"].strip()]


def _render(
    writers: Writers, messages: Sequence[Message], turns: Sequence[int], ends: frozenset[int], max_length: int
) -> Example | Reason:
    """Return a conversation up to the last of some of the assistant's turns, which are learned."""
    from jinja2 import TemplateError

    texts = []
    for index in turns:
        prompter = writers.of_turn(messages[index])
        if prompter is None:
            return "thought"
        said = [*messages[:index], _with_thought(messages[index])]
        try:
            texts += [prompter.render(messages[:index]), prompter.finished(said)]
        except TemplateError:  # many want user and assistant by turns
            return "template"
        if messages[index].get(THOUGHT, "").strip() not in texts[-1]:
            return "thought"
    encoded = writers.plain.encode(texts)
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


def _with_thought(message: Message) -> Message:
    """Return an assistant's turn with its thought under every name that templates have for it."""
    thought = message.get(THOUGHT)
    return {**message, **dict.fromkeys(_THOUGHTS, thought)} if thought else message


def render_all(
    writers: Writers, chats: Iterator[list[Message]], ends: frozenset[int], max_length: int
) -> tuple[list[Example], dict[str, int]]:
    """Return all examples that can be trained on, and how many were left out for which reason.

    Raises:
        UserError: none can, with the reasons.
    """
    examples: list[Example] = []
    left_out: Counter[str] = Counter()
    for messages in chats:
        for found in render(writers, messages, ends, max_length):
            if isinstance(found, Example):
                examples.append(found)
            else:
                left_out[found] += 1
    if not examples:
        meanings = {
            "template": f"{left_out['template']} that the chat template does not render turn by turn",
            "thought": f"{left_out['thought']} with a thought that the chat template does not write",
            "no_answer": f"{left_out['no_answer']} without an answer",
            "too_long": f"{left_out['too_long']} of more than {max_length} tokens",
        }
        reasons = [meaning for reason, meaning in meanings.items() if left_out[reason]]
        raise UserError(f"There is no example to train on: {'; '.join(reasons) or 'the file is empty'}.")
    return examples, dict(left_out)
