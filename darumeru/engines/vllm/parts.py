"""What vLLM is asked to answer a request, and what its outputs say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from darumeru.engines.base import finish, label_logprobs, label_tree
from darumeru.errors import UserError
from darumeru.requests import Answer, Request, Tokens

MAX_LABEL_TOKENS = 128
"""vLLM's bound on `logprob_token_ids`."""


class Part:
    """One vLLM request: its tokens, and the label prefix or continuation that it is about.

    A continuation's last token is not among the tokens: it is scored as the one that vLLM generates, so that a prompt and
    its continuation may fill the context to the last token.
    """

    def __init__(self, tokens: Tokens, tail: Tokens = (), wanted: tuple[int, ...] = ()) -> None:
        self.tokens = tokens
        self.tail = tail
        self.wanted = wanted


def parts_of(request: Request) -> list[Part]:
    """Return the vLLM requests that answer a request.

    Raises:
        UserError: it has more labels than vLLM scores at once.
    """
    if request.kind == "generate":
        return [Part(request.prompt)]
    if request.kind == "choose":
        tree = label_tree(request.labels)
        if max(map(len, tree.values())) > MAX_LABEL_TOKENS:
            raise UserError(f"'{request.id}' has more than {MAX_LABEL_TOKENS} labels, more than vLLM scores at once.")
        return [Part(request.prompt + prefix, prefix, wanted) for prefix, wanted in tree.items()]
    return [Part(request.prompt + c[:-1], c, c[-1:]) for c in request.continuations]


def sampling(request: Request, part: Part, eos_ids: frozenset[int], *, cached: bool) -> Any:
    """Return vLLM's `SamplingParams` for a part; `cached`: whether the prompt may come out of the prefix cache."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    if request.kind == "generate":
        params = SamplingParams(
            **drawing(request),
            max_tokens=request.max_tokens,
            stop=list(request.until) or None,
            stop_token_ids=sorted(eos_ids | ({request.stop} if request.stop is not None else set())),
            skip_special_tokens=True,
            detokenize=bool(request.until),
        )
    else:
        inside = request.kind != "choose" and len(part.tail) > 1
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=list(part.wanted),
            prompt_logprobs=0 if inside else None,
            skip_reading_prefix_cache=inside and not cached,
            detokenize=False,
        )
    params.output_kind = RequestOutputKind.FINAL_ONLY
    return params


def drawing(request: Request) -> dict[str, Any]:
    """Return vLLM's settings for how a request's tokens are drawn; it has a generator for each request with a seed."""
    if request.sampling is None:
        return {"temperature": 0.0}
    return asdict(request.sampling) | {"seed": request.seed}


class Open:
    """A request whose parts are coming in."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.parts = parts_of(request)
        self.results: dict[int, Any] = {}

    @property
    def complete(self) -> bool:
        """Whether all parts are there."""
        return len(self.results) == len(self.parts)

    def take(self, part: int, output: Any) -> bool:
        """Keep a part's result; False if it has to be asked again without the prefix cache."""
        kind, what = self.request.kind, self.parts[part]
        made = output.outputs[0]
        if kind == "generate":
            self.results[part] = list(made.token_ids)
        elif kind == "choose":
            self.results[part] = {token: made.logprobs[0][token].logprob for token in what.wanted}
        else:
            rows = _inner_rows(output, self.request.prompt_tokens, what.tail)
            if rows is None:
                return False
            last = what.tail[-1]
            self.results[part] = [*rows, (float(made.logprobs[0][last].logprob), made.token_ids[0] == last)]
        return True

    def answer(self, eos_ids: frozenset[int], tokenizer: Any) -> Answer:
        """Return the answer that the parts' results make."""
        request = self.request
        if request.kind == "generate":
            return finish(request, self.results[0], eos_ids, tokenizer)
        if request.kind == "choose":
            found = {self.parts[i].tail: values for i, values in self.results.items()}
            return Answer(request.id, logprobs=label_logprobs(request.labels, found))
        rows = [self.results[i] for i in range(len(self.parts))]
        sums = tuple(sum(value for value, _ in row) for row in rows)
        if request.kind == "likelihood":
            return Answer(request.id, logprobs=sums, greedy=tuple(all(top for _, top in row) for row in rows))
        return Answer(request.id, logprobs=tuple(s / len(row) for s, row in zip(sums, rows, strict=True)))


def _inner_rows(output: Any, prompt_len: int, tail: Tokens) -> list[tuple[float, bool]] | None:
    """Return log-probability and rank (is it the first?) of a continuation's tokens but the last; None where one is missing.

    vLLM returns no (or wrong) log-probabilities for prompt positions that it took from its cache. The continuation's first
    token is predicted at the prompt's last position, so at most all but that one may be cached.
    """
    inner = tail[:-1]
    if not inner:
        return []
    if (output.num_cached_tokens or 0) > prompt_len - 1:
        return None
    rows = output.prompt_logprobs
    if rows is None or len(rows) < len(inner):
        return None
    found = []
    for row, token in zip(rows[-len(inner) :], inner, strict=True):
        if row is None or token not in row:
            return None
        found.append((float(row[token].logprob), row[token].rank == 1))
    return found
