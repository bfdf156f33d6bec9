"""Requests to a loaded engine; each answer is in a journal as soon as it is known."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from darumeru.errors import DarumeruError
from darumeru.files import dumps
from darumeru.requests import PackedTokens, Request

if TYPE_CHECKING:
    from darumeru.engines import Engine
    from darumeru.record.run import Journal


class Progress(Protocol):
    """Is told how far a run has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` tokens' worth of requests are answered."""
        ...


def answer_tokens(request: Request) -> int:
    """Return the most tokens that an answer adds to a prompt."""
    sequences = [*request.continuations, *(s for label in request.labels for s in label)]
    return max(request.max_tokens, max(map(len, sequences), default=0))


def longest_input(requests: Iterable[Request]) -> int:
    """Return for how many tokens an engine must be loaded: the longest prompt with its answer."""
    return max(r.prompt_tokens + answer_tokens(r) for r in requests)


def requests_sha256(requests: Iterable[Request]) -> str:
    """Return the fingerprint of all that an engine is asked: of the list of requests, fed to the hash one by one."""
    digest = hashlib.sha256(b"[")
    heads: dict[bytes, str] = {}  # what prompts share is written out once
    for number, r in enumerate(requests):
        head, tail = r.packed.head, r.packed.tail
        if head not in heads:
            heads[head] = _listed(head)
        prompt = f"[{', '.join(filter(None, (heads[head], _listed(tail))))}]"
        drawn = [] if r.sampling is None else [asdict(r.sampling), r.seed]
        before, after = dumps([r.id, r.kind]), dumps([r.labels, r.continuations, r.max_tokens, r.until, *drawn])
        digest.update(f"{', ' if number else ''}{before[:-1]}, {prompt}, {after[1:]}".encode())
    digest.update(b"]")
    return digest.hexdigest()


def _listed(packed: bytes) -> str:
    """Return packed token ids as they stand in a JSON list, without its brackets."""
    return dumps(PackedTokens(b"", packed).tokens())[1:-1]


def ask(
    engine: Engine, requests: Sequence[Request], journal: Journal, progress: Progress | None = None
) -> tuple[dict[str, str], float]:
    """Have an engine answer what the journal does not hold yet.

    Returns:
        Why requests were not answered, by their ids (the same call asks them again), and the seconds that the engine worked.

    Raises:
        DarumeruError: the engine left requests unanswered without a reason.
    """
    cost = {r.id: r.prompt_tokens + answer_tokens(r) for r in requests}
    total, done = sum(cost.values()), sum(cost.get(i, 0) for i in journal.answers)
    faults: dict[str, str] = {}
    worked = 0.0
    if progress:
        progress(done, total)
    last = time.perf_counter()
    for batch in engine.answers(requests, journal.answers.keys()):
        took = time.perf_counter() - last
        worked += took
        faults |= {a.id: a.error for a in batch if a.error}
        if good := [a for a in batch if not a.error]:
            journal.append(good, took, engine.interleaves)
        done += sum(cost[a.id] for a in batch)
        if progress:
            progress(done, total)
        last = time.perf_counter()
    missing = [r.id for r in requests if r.id not in journal.answers and r.id not in faults]
    if missing:
        raise DarumeruError(f"The engine left {len(missing)} requests unanswered, the first is '{missing[0]}'.")
    return faults, worked
