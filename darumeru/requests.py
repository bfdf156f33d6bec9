"""Questions and answers that pass between tasks and engines: a query in words, the request in tokens, the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from struct import pack, unpack
from typing import Any, Literal, Protocol, TypeVar, overload

Kind = Literal["choose", "rank", "generate", "likelihood"]
Message = dict[str, str]
"""`{"role": "system" | "user" | "assistant", "content": str}`; a last assistant turn is one the model continues."""

Tokens = tuple[int, ...]

_ID_BYTES = 4

SEEDS = 2**31
"""A request's seed lies below: all servers take such ones."""


class PackedTokens:
    """Token ids, four bytes each, in two parts; many sequences may hold the same first part, which is in memory once.

    The bytes of an id are in big-endian order, so that bytes compare as the ids do.
    """

    __slots__ = ("head", "tail")

    def __init__(self, head: bytes, tail: bytes) -> None:
        self.head, self.tail = head, tail

    @classmethod
    def of(cls, ids: Iterable[int], head: bytes = b"") -> PackedTokens:
        """Return `ids`, behind the packed ids of a `head`."""
        listed = list(ids)
        return cls(head, pack(f">{len(listed)}I", *listed))

    def __len__(self) -> int:
        return (len(self.head) + len(self.tail)) // _ID_BYTES

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedTokens):
            return NotImplemented
        if self.head is other.head:
            return self.tail == other.tail
        return len(self) == len(other) and self.joined() == other.joined()

    def __lt__(self, other: PackedTokens) -> bool:
        """Return whether it comes first in lexicographic order."""
        if self.head is other.head:
            return self.tail < other.tail
        both = min(len(self.head), len(other.head))
        if self.head[:both] != other.head[:both]:
            return self.head < other.head
        return self.joined() < other.joined()

    def __hash__(self) -> int:
        return hash(self.joined())

    def joined(self) -> bytes:
        """Return the bytes of both parts."""
        return self.head + self.tail

    def tokens(self) -> Tokens:
        """Return the ids."""
        return unpack(f">{len(self)}I", self.joined())

    def followed_by(self, ids: Iterable[int]) -> PackedTokens:
        """Return these ids and more behind them, the first part shared."""
        return PackedTokens(self.head, self.tail + PackedTokens.of(ids).tail)

    def common(self, other: PackedTokens) -> int:
        """Return with how many equal ids the two begin."""
        length = min(len(self), len(other)) * _ID_BYTES
        mine, theirs = self.joined()[:length], other.joined()[:length]
        differing = int.from_bytes(mine, "big") ^ int.from_bytes(theirs, "big")
        return (8 * length - differing.bit_length()) // (8 * _ID_BYTES)


class _Packed:
    """The field `prompt`: read as a tuple, kept as `PackedTokens`."""

    @overload
    def __get__(self, request: None, owner: type) -> _Packed: ...

    @overload
    def __get__(self, request: Request, owner: type) -> Tokens: ...

    def __get__(self, request: Request | None, owner: type) -> Tokens | _Packed:
        if request is None:
            raise AttributeError  # so that the field has no default
        return request.packed.tokens()

    def __set__(self, request: Request, value: Tokens | PackedTokens) -> None:
        packed = value if isinstance(value, PackedTokens) else PackedTokens.of(value)
        object.__setattr__(request, "_prompt", packed)


class _Joined:
    """The field `text`: read as one string, kept in two parts, of which other requests may hold the first."""

    @overload
    def __get__(self, request: None, owner: type) -> _Joined: ...

    @overload
    def __get__(self, request: Request, owner: type) -> str: ...

    def __get__(self, request: Request | None, owner: type) -> str | _Joined:
        if request is None:
            raise AttributeError
        return "".join(object.__getattribute__(request, "_text"))

    def __set__(self, request: Request, value: str | tuple[str, str]) -> None:
        object.__setattr__(request, "_text", (value,) if isinstance(value, str) else value)


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
    system: str = ""
    """A system turn that stands once in a prompt, before everything."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: from softmax(logits / temperature), without the tokens that the other settings leave out."""

    temperature: float = 1.0
    """Above 0."""
    top_p: float = 1.0
    """Only the fewest tokens whose probabilities sum to it (Holtzman et al. 2020); 1: all."""
    top_k: int = 0
    """Only so many of the most probable tokens; 0: all."""
    min_p: float = 0.0
    """Only tokens with that share of the highest probability (Nguyen et al. 2024); 0: all."""


@dataclass(frozen=True)
class Thinking:
    """How a model thinks before it answers: the request's prompt ends where the thought begins.

    The answer follows the thought: prompt + thought + `end` + `resume` is what the model answers.
    """

    budget: int
    """The most tokens of the thought, its end included."""
    end: int
    """The token that ends the thought."""
    resume: Tokens
    """What follows it before the answer: a line break, say, and the beginning of the answer that the prompt gives."""
    text: str = field(default="", compare=False)
    """`end` and `resume` as text."""


@dataclass(frozen=True)
class Request:
    """A query in one model's tokens: all that an engine needs, and what the record keeps of the prompt.

    A run has all its requests at once, with a hundred million tokens: what prompts begin with alike is in memory once, and
    `prompt` and `text` are put together where they are read. `packed` compares and `prompt_tokens` counts without that.
    """

    id: str
    """`task/document/query`, unique in a run; a repeat's ends in `@` and its number."""
    kind: Kind
    prompt: _Packed = _Packed()
    text: _Joined = _Joined()
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
    sampling: Sampling | None = None
    """How the tokens of a text or a thought are drawn; None: each is the most probable one."""
    seed: int = 0
    """Of what is drawn, below `SEEDS`: the same tokens wherever and in whichever company the request is answered."""
    repeat: int = 0
    """Which of the answers to its query it asks for."""
    stop: int | None = None
    """generate: a token that ends the answer as end-of-sequence tokens do, and stays in its tokens."""
    thinking: Thinking | None = None
    """How the model thinks first; None where it does not. Engines never see it: `inference.asking` makes two requests of one."""
    messages: tuple[Message, ...] = field(default=(), repr=False, compare=False)
    """The conversation that `prompt` renders, for servers that render it themselves; empty where `prompt` was truncated."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.packed)

    @property
    def packed(self) -> PackedTokens:
        """The prompt's ids as they are kept; requests sort by them as by `prompt`, without copies."""
        packed: PackedTokens = object.__getattribute__(self, "_prompt")
        return packed

    def drawn(self, sampling: Sampling, seed: int, repeat: int = 0) -> Request:
        """Return the request for one of several drawn answers; its prompt is in memory once."""
        return replace(
            self,
            id=f"{self.id}@{repeat}" if repeat else self.id,
            prompt=self.packed,
            text=object.__getattribute__(self, "_text"),
            sampling=sampling,
            seed=seed,
            repeat=repeat,
        )


class Repeated(Protocol):
    """A request, or the record of one."""

    @property
    def repeat(self) -> int:
        """Which of the answers to its query it is about."""


One = TypeVar("One", bound=Repeated)


def by_query(requests: Sequence[One]) -> list[list[One]]:
    """Return a document's requests, a list for each of its queries: its repeats.

    Args:
        requests: in the order of queries, the repeats of each next to each other.
    """
    queries: list[list[One]] = []
    for request in requests:
        if request.repeat == 0:
            queries.append([])
        queries[-1].append(request)
    return queries


def by_repeat(requests: Sequence[One]) -> list[list[One]]:
    """Return a document's requests, one for each of its queries, as often as it is asked.

    A query that is asked once, because its answer is not drawn, is part of every repeat.

    Args:
        requests: see `by_query`.
    """
    queries = by_query(requests)
    count = max(map(len, queries), default=1)
    return [[query[min(number, len(query) - 1)] for query in queries] for number in range(count)]


def thinking_tokens(request: Request) -> int:
    """Return the most tokens that stand between a request's prompt and its answer: of a thought and what follows it."""
    return request.thinking.budget + len(request.thinking.resume) if request.thinking else 0


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
    thought: str = ""
    """What the model thought before it answered, without what opens and closes it."""
    thought_tokens: Tokens = ()
    """The tokens that it generated for the thought; where it ended, the last one is its end."""
    unfinished: bool = False
    """True if the thought did not end within its budget, or the model ended in it: the answer is empty."""
    approximate: bool = False
    """True if a server gave less than was needed: `tokens` are a guess, or some label was not among its most probable."""
    error: str = ""
    """Why there is no answer; such a request is asked again when the run resumes."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer without its empty fields."""
        kept = {k: v for k, v in vars(self).items() if v not in ((), "") and v is not False}
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
            thought=value.get("thought", ""),
            thought_tokens=tuple(value.get("thought_tokens", ())),
            unfinished=bool(value.get("unfinished", False)),
            approximate=bool(value.get("approximate", False)),
        )


def unfinished(request: Request) -> Answer:
    """Return the answer of a model whose thought did not end: an empty one."""
    return Answer(request.id, finish="length" if request.kind == "generate" else "", unfinished=True)


def with_thought(answer: Answer, thought: Sequence[int], tokenizer: Any) -> Answer:
    """Return an answer with the thought that it follows; the last token of one that ended is its end, and no text."""
    inside = thought if answer.unfinished else thought[:-1]
    text = tokenizer.decode(inside, skip_special_tokens=True).strip()
    return replace(answer, thought=text, thought_tokens=tuple(thought))
