"""Questions and answers that pass between tasks and engines: a query in words, the request in tokens, the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["choose", "rank", "generate", "likelihood"]
Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": str}`; a last assistant turn is one the model continues."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Query:
    """One question to a model, in words."""

    kind: Kind
    messages: list[Message]
    headline: str = ""
    """Stands once in a prompt, before its first user turn, which may be an example's."""
    options: tuple[str, ...] = ()
    """choose: the labels; rank: the continuations."""
    max_tokens: int = 0
    """generate: the most tokens to generate."""
    until: tuple[str, ...] = ()
    """generate: texts that end the answer, beside the end-of-sequence tokens."""
    reference: str | None = None
    """A text whose length in the model's own tokens the score needs."""
    droppable: int = 0
    """Number of pieces of the prompt (earlier dialogue turns) may be dropped, oldest first, to make it fit."""
    dropped: Callable[[int], list[Message]] | None = field(default=None, repr=False)
    """The messages with that many pieces dropped."""


@dataclass(frozen=True)
class Request:
    """A query in one model's tokens: all that an engine needs, and what the record keeps of the prompt."""

    id: str
    """`task/document/query`, unique in a run."""
    kind: Kind
    prompt: Tokens
    text: str
    """The prompt as text, after few-shot fitting and truncation."""
    labels: tuple[tuple[Tokens, ...], ...] = ()
    """choose: for each label the token sequences of its spellings."""
    continuations: tuple[Tokens, ...] = ()
    """rank: the tokens of each continuation, all cut to the length of the shortest; likelihood: uncut."""
    max_tokens: int = 0
    until: tuple[str, ...] = ()
    num_fewshot: int = 0
    """Few-shot examples that fitted."""
    truncated: int = 0
    """Tokens cut off the left of the prompt."""
    reference_tokens: int | None = None
    messages: tuple[Message, ...] = field(default=(), repr=False, compare=False)
    """The conversation that `prompt` renders, for servers that render it themselves; empty where `prompt` was truncated."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)


@dataclass(frozen=True)
class Answer:
    """An engine's answer to one request."""

    id: str
    logprobs: tuple[float, ...] = ()
    """choose: log-probability of each label's better spelling; rank: mean over each continuation's tokens;
    likelihood: sum over them."""
    greedy: tuple[bool, ...] = ()
    """likelihood: whether each continuation is the most probable one, token by token."""
    text: str = ""
    """generate: the answer, without the text that ended it."""
    tokens: Tokens = ()
    """generate: the tokens that the model really generated for `text`; no end-of-sequence token."""
    finish: Literal["", "stop", "length"] = ""
    """generate: `stop` if the model ended by itself, `length` if it hit max_tokens."""
    approximate: bool = False
    """True if a server gave less than was needed: `tokens` are a guess, or some label was not among its most probable."""
    error: str = ""
    """Why there is no answer; such a request is asked again when the run resumes."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer without its empty fields."""
        kept = {k: v for k, v in asdict(self).items() if v not in ((), "") and v is not False}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()} | {"id": self.id}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Answer:
        """Return the inverse of `to_json`."""
        return cls(
            id=value["id"],
            logprobs=tuple(value.get("logprobs", ())),
            greedy=tuple(value.get("greedy", ())),
            text=value.get("text", ""),
            tokens=tuple(value.get("tokens", ())),
            finish=value.get("finish", ""),
            approximate=bool(value.get("approximate", False)),
        )
