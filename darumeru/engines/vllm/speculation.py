"""Speculation: tokens that earlier ones foretell, because an answer copies its prompt, checked by the model in one pass.

(Leviathan et al. 2023; n-grams of the prompt instead of a draft model: Saxena 2023.) Greedy answers keep their tokens as far as a
pass over several tokens computes the logits of a pass over one: in float32 up to ties, in 16 bits not.

vLLM 0.32 has one speculative configuration for an engine's life, and an engine that speculates gives no probabilities of labels
(its rejection sampler knows no `logprob_token_ids`). So there are two engines, one after the other: the plain one answers all
that is no greedy text, and some of those, which tell whether the rest is worth a second loading.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from darumeru.errors import UserError
from darumeru.requests import Request

Speculate = Literal["auto", "on", "off"]

DRAFTED = 8
"""Tokens that are foretold for a pass, at most."""
LONGEST, SHORTEST = 4, 2
"""Tokens that must have occurred before: so many where possible, so many at least."""

CONFIG: dict[str, Any] = {
    "method": "ngram",
    "num_speculative_tokens": DRAFTED,
    "prompt_lookup_max": LONGEST,
    "prompt_lookup_min": SHORTEST,
}
"""vLLM's `speculative_config`."""

SAMPLED = 32
"""Answers that tell whether the others are worth it."""

LEAST_TOKENS = 2.0
"""Tokens a pass from which on speculation is taken to pay: a pass over several tokens costs more than one over a single token. A
guess, as the next one is: `benchmarks/speculation.py` measures both sides."""

LOADINGS = 4
"""The rest must take so many times as long as loading the model: it may have to be loaded twice."""


def asked(value: Any) -> Speculate:
    """Return what `--model-args speculate=…` says; YAML reads on and off as truth values.

    Raises:
        UserError: it is none of auto, on, off.
    """
    found = {"True": "on", "False": "off"}.get(str(value), value)
    if found not in get_args(Speculate):
        raise UserError(f"--model-args speculate={value} is not possible: give auto, on or off.")
    return cast("Speculate", found)


def greedy_text(request: Request) -> bool:
    """Return whether a request may be answered with speculation: by a text that is not drawn, and no thought."""
    return request.kind == "generate" and request.sampling is None and request.stop is None


def passes(prompt: Sequence[int], answer: Sequence[int]) -> int:
    """Return how many passes an answer takes with speculation.

    Before each, the longest n-gram at the end of prompt and answer is looked up where it occurs first, and what follows it there
    is drafted; the pass keeps the draft's tokens as far as they are the answer's, and adds one.
    """
    tokens = [*prompt, *answer]
    first: dict[tuple[int, ...], int] = {}
    known, indexed, count = len(prompt), 0, 0
    while known < len(tokens):
        for end in range(indexed + 1, known):  # n-grams that something follows
            for size in range(SHORTEST, min(LONGEST, end) + 1):
                first.setdefault(tuple(tokens[end - size : end]), end)
        indexed = max(indexed, known - 1)
        draft: list[int] = []
        for size in range(min(LONGEST, known), SHORTEST - 1, -1):
            if (at := first.get(tuple(tokens[known - size : known]))) is not None:
                draft = tokens[at : min(at + DRAFTED, known)]
                break
        kept = 0
        while kept < len(draft) and known + kept < len(tokens) and draft[kept] == tokens[known + kept]:
            kept += 1
        known, count = known + kept + 1, count + 1
    return count


@dataclass(frozen=True)
class Trial:
    """What some answers, generated one token a pass, tell of the rest."""

    tokens: int
    """That they have."""
    passes: int
    """That they would take with speculation."""
    seconds: float
    """That they took."""
    answers: int

    @classmethod
    def of(cls, requests: Iterable[Request], answers: Mapping[str, Sequence[int]], seconds: float) -> Trial:
        """Return what the tokens of some requests' answers, by their ids, tell."""
        asked_ = [r for r in requests if r.id in answers]
        return cls(
            sum(len(answers[r.id]) for r in asked_),
            sum(passes(r.prompt, answers[r.id]) for r in asked_),
            seconds,
            len(asked_),
        )

    def pays(self, rest: int, loading: float) -> bool:
        """Return whether so many further requests are worth a model that is loaded once more, in so many seconds."""
        if not self.answers or self.tokens < LEAST_TOKENS * self.passes:
            return False
        return self.seconds / self.answers * rest > LOADINGS * loading
