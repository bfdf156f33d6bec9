"""A model that thinks: of one request two are made, the first for the thought, the second for the answer behind it."""

from __future__ import annotations

from dataclasses import replace

from darumeru.requests import SEEDS, Answer, Request
from darumeru.scoring.bootstrap import seed_of

_MARK = "#thought"


def thought_id(asked: Request | Answer) -> str:
    """Return the id under which a journal keeps the thought before the answer to a request."""
    return asked.id + _MARK


def asked_id(id_: str) -> str:
    """Return the id of the request that an id, perhaps of its thought, belongs to."""
    return id_.removesuffix(_MARK)


def first(request: Request) -> Request:
    """Return what the engine is asked first: the request itself, or the thought before it."""
    thinking = request.thinking
    if thinking is None:
        return request
    return replace(
        request, id=thought_id(request), kind="generate", labels=(), continuations=(), until=(), max_tokens=thinking.budget,
        stop=thinking.end, thinking=None, messages=(),
    )  # fmt: skip


def second(request: Request, thought: Answer) -> Request:
    """Return the request for the answer behind a thought that ended."""
    resume = request.thinking.resume if request.thinking else ()
    prompt = request.packed.followed_by((*thought.tokens, *resume))
    # Another seed: the answer's tokens are not drawn with the numbers that the thought's were.
    seed = seed_of(request.seed, "answer") % SEEDS if request.sampling else request.seed
    return replace(request, prompt=prompt, text="", thinking=None, messages=(), seed=seed)


def ended(request: Request, thought: Answer) -> bool:
    """Return whether a thought ended, in its budget and by the token that ends thoughts."""
    return request.thinking is not None and thought.tokens[-1:] == (request.thinking.end,)
