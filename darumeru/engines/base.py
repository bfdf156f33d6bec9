"""What every engine can do, and what they share: labels as a tree of tokens, where an answer ends, lm-eval's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lm_eval.api.model import LM

from darumeru.errors import UserError
from darumeru.requests import Answer, Request, Tokens

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Server:
    """A model that is served elsewhere: what the api engine asks, and how exact its answers must be."""

    base_url: str
    model: str
    """The name under which the server offers the model."""
    aliases: tuple[str, ...] = ()
    """Other names under which it may."""
    api_key_env: str | None = None
    """The environment variable that holds the API key; the key itself is kept nowhere."""
    approximate: bool = False
    """Whether numbers are accepted that are not exactly the model's."""


@dataclass(frozen=True)
class EngineOptions:
    """How to load a model."""

    dtype: str = "auto"
    device: Device = "auto"
    seed: int = 0
    trust_remote_code: bool = False
    max_len: int = 4096
    """The longest prompt with its answer that will be asked for, in tokens."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """What only this engine knows, e.g. `tensor_parallel_size` of vLLM."""
    adapter: Path | None = None
    """Folder of a LoRA adapter to apply."""
    exact: bool = False
    """Give up speed for numbers that repeat bit by bit on one machine: no shared beginnings, fixed batches."""
    server: Server | None = None
    """api: the server to ask."""


class Engine(LM):  # type: ignore[misc]
    """A loaded model that answers requests.

    It is also an lm-eval `LM`, so that stock lm-eval tasks run on it: `lm_eval.simple_evaluate(model=engine, …)`.
    """

    name: str = ""
    interleaves: bool = False
    """Whether it works on all requests at once, so that the time between two answers is not the time of the second."""
    tokenizer: Any
    eos_ids: frozenset[int]

    @abstractmethod
    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """Answer requests, in any order, a few at a time, as soon as they are known.

        Args:
            requests: all requests of the run, so that batches do not depend on where an earlier run stopped.
            done: ids of requests that need no answer any more.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name, versions, data type and device, for the record."""

    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- lm-eval ------------------------------------------------------------------------------------------------------

    def _ask(self, requests: list[Request]) -> list[Answer]:
        found = {a.id: a for batch in self.answers(requests) for a in batch}
        return [found[r.id] for r in requests]

    def _encode(self, text: str, special: bool) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return ids

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Sum of the continuation's log-probabilities and whether it is the greedy one. See lm-eval."""
        asked = []
        for index, instance in enumerate(requests):
            context, continuation = instance.args
            # Trailing spaces belong to the continuation, as in lm-eval.
            stripped = context.rstrip()
            continuation, context = context[len(stripped) :] + continuation, stripped
            whole = self._encode(context + continuation, True)
            prompt = self._encode(context, True) or [self.prefix_token]
            if whole[: len(prompt)] != prompt:
                whole = prompt + self._encode(continuation, False)
            asked.append(
                Request(str(index), "likelihood", tuple(prompt), context, continuations=(tuple(whole[len(prompt) :]),))
            )
        return [(a.logprobs[0], a.greedy[0]) for a in self._ask(asked)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-probability of whole texts, each from the prefix token on. See lm-eval."""
        asked = []
        for index, instance in enumerate(requests):
            ids = self._encode(instance.args[0], False)
            asked.append(Request(str(index), "likelihood", (self.prefix_token,), "", continuations=(tuple(ids),)))
        return [a.logprobs[0] for a in self._ask(asked)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Greedy texts that carry their token ids. See lm-eval."""
        asked = []
        for index, instance in enumerate(requests):
            context, arguments = instance.args
            if arguments.get("do_sample") or float(arguments.get("temperature", 0) or 0) > 0:
                raise UserError("Darumeru's engines generate greedily; do_sample and temperature are not available.")
            until = arguments.get("until") or []
            until = (until,) if isinstance(until, str) else tuple(until)
            asked.append(
                Request(
                    str(index),
                    "generate",
                    tuple(self._encode(context, True)),
                    context,
                    max_tokens=int(arguments.get("max_gen_toks", 256)),
                    until=until,
                )
            )
        return [GeneratedText(a.text, a.tokens) for a in self._ask(asked)]

    @property
    def prefix_token(self) -> int:
        """The token that a text without context follows: BOS, else EOS."""
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """See lm-eval."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See lm-eval."""
        text: str = self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )
        return text


class GeneratedText(str):
    """A generated text that remembers its tokens; lm-eval's filters keep it as it is."""

    token_ids: Tokens

    def __new__(cls, text: str, token_ids: Tokens) -> GeneratedText:
        """A text with its tokens."""
        self = super().__new__(cls, text)
        self.token_ids = token_ids
        return self


# -- labels -----------------------------------------------------------------------------------------------------------


def label_tree(labels: Sequence[Sequence[Tokens]]) -> dict[Tokens, tuple[int, ...]]:
    """The questions that give the probability of every label.

    Args:
        labels: for each label its spellings as token sequences.

    Returns:
        For each proper prefix of a spelling, the empty one first, the tokens whose probability after it is wanted. Where
        every spelling is one token there is one prefix, the empty one, and one forward pass answers all.
    """
    tree: dict[Tokens, set[int]] = {}
    for spelling in (s for label in labels for s in label):
        for depth, token in enumerate(spelling):
            tree.setdefault(spelling[:depth], set()).add(token)
    return {prefix: tuple(sorted(tree[prefix])) for prefix in sorted(tree, key=lambda p: (len(p), p))}


def label_logprobs(
    labels: Sequence[Sequence[Tokens]], logprobs: Mapping[Tokens, Mapping[int, float]]
) -> tuple[float, ...]:
    """The log-probability of each label: that of its more probable spelling, the product over the spelling's tokens."""
    return tuple(
        max(sum(logprobs[spelling[:d]][token] for d, token in enumerate(spelling)) for spelling in label)
        for label in labels
    )


# -- the end of an answer ---------------------------------------------------------------------------------------------


def finish(request: Request, tokens: Sequence[int], eos_ids: Container[int], tokenizer: Any) -> Answer:
    """The answer in generated tokens: without the end-of-sequence token, cut before the first text that ends it.

    Tokens that hold nothing but the ending text are dropped with it, so that every engine counts the same tokens.
    """
    ids = list(tokens)
    stopped = False
    for index, token in enumerate(ids):
        if token in eos_ids:
            ids, stopped = ids[:index], True
            break
    text = tokenizer.decode(ids, skip_special_tokens=True)
    cuts = [at for end in request.until if (at := text.find(end)) >= 0]
    if cuts:
        text, stopped = text[: min(cuts)], True
        while ids and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= len(text):
            ids.pop()
    return Answer(request.id, text=text, tokens=tuple(ids), finish="stop" if stopped else "length")
