"""Requests to a loaded engine; each answer is in a journal as soon as it is known."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Protocol

from darumeru.errors import DarumeruError
from darumeru.files import dumps
from darumeru.inference.thoughts import asked_id, ended, first, second, thought_id
from darumeru.requests import Answer, PackedTokens, Request, thinking_tokens, unfinished, with_thought

if TYPE_CHECKING:
    from darumeru.engines import Engine
    from darumeru.record.run import Journal


class Progress(Protocol):
    """Is told how far a run has come."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` tokens' worth of requests are answered."""
        ...


def answer_tokens(request: Request) -> int:
    """Return the most tokens that an answer adds to a prompt, and the thought before it."""
    sequences = [*request.continuations, *(s for label in request.labels for s in label)]
    return thinking_tokens(request) + max(request.max_tokens, max(map(len, sequences), default=0))


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
        thinking = [[r.thinking.budget, r.thinking.end, r.thinking.resume]] if r.thinking else []
        drawn = [asdict(r.sampling), r.seed] if r.sampling else []
        before = dumps([r.id, r.kind])
        after = dumps([r.labels, r.continuations, r.max_tokens, r.until, *thinking, *drawn])
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

    Of a request that is thought about the engine gets two, one after the other: all thoughts first, with the requests that need
    none, then the answers behind them; or each answer as soon as its thought is known (`Engine.follows`). A thought is in the
    journal as it comes, and is not thought again. An engine that gives both at once (`Engine.thinks`) gets the request as it is.

    Returns:
        Why requests were not answered, by their ids (the same call asks them again), and the seconds that the engine worked.

    Raises:
        DarumeruError: the engine left requests unanswered without a reason.
    """
    engine.check_kinds({r.kind for r in requests if r.id not in journal.answers})
    asking = _Asking(engine, journal, _costs(requests, at_once=engine.thinks), progress)
    asked = requests if engine.thinks else [first(r) for r in requests]
    asking.pass_over(asked, _follow(requests) if engine.follows else None)
    # Those behind all thoughts, answered or not, so that an engine's batches do not depend on where a run stopped.
    thoughts = {r.id: journal.answers[thought_id(r)] for r in requests if thought_id(r) in journal.answers}
    behind = [second(r, thoughts[r.id]) for r in requests if r.id in thoughts and ended(r, thoughts[r.id])]
    cut = [r for r in requests if r.id in thoughts and r.id not in journal.answers and not ended(r, thoughts[r.id])]
    if cut:
        asking.keep([unfinished(r) for r in cut], 0.0)
    if behind:
        asking.pass_over(behind)
    missing = [r.id for r in requests if r.id not in journal.answers and r.id not in asking.faults]
    if missing:
        raise DarumeruError(f"The engine left {len(missing)} requests unanswered, the first is '{missing[0]}'.")
    return asking.faults, asking.worked


def _follow(requests: Iterable[Request]) -> Callable[[Answer], Request | None]:
    """Return what tells which request follows the answer that is a thought."""
    thinking = {thought_id(r): r for r in requests if r.thinking}

    def follow(answer: Answer) -> Request | None:
        request = thinking.get(answer.id)
        return second(request, answer) if request is not None and ended(request, answer) else None

    return follow


def _costs(requests: Iterable[Request], at_once: bool) -> dict[str, int]:
    """Return the tokens' worth of each request that the engine gets, by its id; thought and answer are one, or two."""
    costs: dict[str, int] = {}
    for r in requests:
        thought = r.thinking.budget if r.thinking and not at_once else 0
        if thought:
            costs[thought_id(r)] = r.prompt_tokens + thought
        costs[r.id] = r.prompt_tokens + answer_tokens(r) - costs.get(thought_id(r), 0)
    return costs


def _of_numbers(answer: Answer) -> Answer:
    """Return an answer, or the fault of one with NaN in it: compared with others it would look like a choice."""
    if not any(map(math.isnan, answer.logprobs)):
        return answer
    fault = (
        "the model's log-probabilities are no numbers (NaN): its weights hold NaN, or it overflows in this data type; try "
        f"another --dtype, such as bfloat16 or float32 ({answer.id})"
    )
    return replace(answer, error=fault)


class _Asking:
    """Passes over a loaded engine whose answers go into one journal.

    Args:
        engine: what answers.
        journal: what keeps the answers.
        costs: of every request, in tokens.
        progress: is told how far it has come.
    """

    def __init__(self, engine: Engine, journal: Journal, costs: Mapping[str, int], progress: Progress | None) -> None:
        self._engine, self._journal, self._costs, self._progress = engine, journal, costs, progress
        self._total, self._done = sum(costs.values()), sum(costs.get(i, 0) for i in journal.answers)
        self.faults: dict[str, str] = {}
        self.worked = 0.0
        self._tell()

    def pass_over(self, requests: Sequence[Request], follow: Callable[[Answer], Request | None] | None = None) -> None:
        """Have the engine answer what the journal does not hold of some requests, and of those that follow their answers."""
        last = time.perf_counter()
        more = {"follow": follow} if follow else {}
        for answered in self._engine.answers(requests, self._journal.answers.keys(), **more):
            batch = [_of_numbers(a) for a in answered]
            took = time.perf_counter() - last
            self.worked += took
            self.faults |= {asked_id(a.id): a.error for a in batch if a.error}
            self._done += sum(self._costs[a.id] for a in batch if a.error)
            if good := [a for a in batch if not a.error]:
                self.keep(good, took)
            self._tell()
            last = time.perf_counter()

    def keep(self, answers: Sequence[Answer], seconds: float) -> None:
        """Put answers into the journal, each with the thought that it follows, if there is one."""
        fresh = {a.id: a for a in answers}
        self._journal.append([self._whole(a, fresh) for a in answers], seconds, self._engine.interleaves)
        self._done += sum(self._costs[a.id] for a in answers)

    def _whole(self, answer: Answer, fresh: Mapping[str, Answer]) -> Answer:
        id_ = thought_id(answer)
        thought = fresh.get(id_) or self._journal.answers.get(id_)
        return answer if thought is None else with_thought(answer, thought.tokens, self._engine.tokenizer)

    def _tell(self) -> None:
        if self._progress:
            self._progress(self._done, self._total)
