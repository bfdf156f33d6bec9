"""How a server is asked each kind of question, by what it can do: exactly where it can, approximately where that is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, replace
from typing import Any

from darumeru.engines.api.abilities import Abilities
from darumeru.engines.api.reading import (
    at_most,
    chat_tops,
    chat_tops_behind,
    content,
    echo_rows,
    first_tops,
    generated_ids,
    logprob,
    reasoning,
    usage,
)
from darumeru.engines.api.served import ServedModel
from darumeru.engines.api.thinking import Thoughts
from darumeru.engines.base import EngineOptions, finish, label_logprobs, label_tree
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Kind, Request, Tokens

MAX_LABEL_TOKENS = 128
"""The most token ids that vLLM's server takes in one `logprob_token_ids`."""

CALL_TOKENS = 64
"""What a call costs whose prompt is in the server's prefix cache, in tokens to compute: the last block of the cache is not full,
and HTTP is not free. With vLLM on two busy CPU cores it was 0.12 s at 450 tokens/s, about 52 tokens."""

# What a server's defaults, taken from the model's own generation settings, would otherwise change about greedy answers.
_GREEDY = {"temperature": 0.0, "top_p": 1.0}
_GREEDY_VLLM = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


Way = Callable[[Request], Awaitable[Answer]]
"""Answers requests of a kind."""


class Ways:
    """The ways to ask one served model.

    Args:
        served: the model, found.
        abilities: what its server can do.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        options: `server` says whether numbers are accepted that are not exactly the model's.
    """

    def __init__(
        self, served: ServedModel, abilities: Abilities, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions
    ) -> None:
        self._served = served
        self.abilities = abilities
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self._approximate = options.server is not None and options.server.approximate
        self._template_args = options.template_args if abilities.template_args else {}
        opening = tokenizer(options.thought_opening, add_special_tokens=False)["input_ids"]
        self._thoughts = Thoughts(tokenizer, eos_ids, tuple(opening))

    def of(self, kind: Kind) -> Way:
        """Return how requests of a kind are answered here.

        Raises:
            UserError: they cannot be, or not exactly, and approximate answers were not allowed.
        """
        able, loose = self.abilities, self._approximate
        chat = able.prompts == "messages"
        where = f"The server at {self._served.base_url}" + (" only chats (/chat/completions): it" if chat else "")
        if kind == "generate":
            if able.generated is None and not loose:
                raise UserError(
                    f"{where} does not return the ids of the tokens that it generated, and the scores count them. vLLM's "
                    "server does. With --approximate texts are tokenized again, and the record says so."
                )
            return self._generate
        if kind == "choose":
            if able.labels:
                return self._choose
            if able.continuations:
                return self._choose_by_continuations
            if not loose:
                raise UserError(
                    f"{where} does not give the exact log-probabilities of labels, so it cannot answer choice tasks. vLLM's "
                    "server does, on /v1/completions. With --approximate labels are taken from its most probable tokens, "
                    "and the record says so."
                )
            if not able.top:
                raise UserError(f"{where} gives no log-probabilities at all, so it cannot answer choice tasks.")
            return self._choose_from_chat if chat else self._choose_from_top
        if able.continuations:
            return self._rank_growing if kind == "rank" and able.labels else self._score
        raise UserError(
            f"{where} does not give the log-probabilities of given texts, so it cannot rank or weigh sentences, not even "
            "approximately. vLLM's server does, on /v1/completions. Leave such tasks out with --tasks."
        )

    def _prompt(self, tokens: Tokens, request: Request) -> Any:
        """A prompt as the server takes it: token ids, or the text before them."""
        if self.abilities.prompts == "tokens":
            return list(tokens)
        # Behind a thought there is no text yet.
        text = (request.text or self.tokenizer.decode(request.prompt)) + self.tokenizer.decode(
            tokens[len(request.prompt) :]
        )
        bos = self.tokenizer.bos_token or ""
        return text.removeprefix(bos) if self.abilities.adds and bos else text

    def _settings(self) -> dict[str, Any]:
        return _GREEDY | (_GREEDY_VLLM if self.abilities.extras else {})

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._served.post("completions", self._settings() | body)

    # -- generate

    async def _generate(self, request: Request) -> Answer:
        able = self.abilities
        most = self._thoughts.most_tokens(request) + request.max_tokens
        body: dict[str, Any] = self._settings() | self._drawing(request) | {able.limit: most}
        if request.until and not request.thinking:  # the thought may hold such a text
            body["stop"] = list(request.until)
        if able.extras:
            ends = self.eos_ids | ({request.stop} if request.stop is not None else set())
            body |= {"return_token_ids": True, "stop_token_ids": sorted(ends)}
        if able.generated == "token_id strings":
            body |= {"logprobs": 1, "return_tokens_as_token_ids": True}
        if able.prompts == "messages":
            body |= self._conversation(request)
        else:
            body["prompt"] = self._prompt(request.prompt, request)
            if able.prompts == "text" and able.extras:
                body["add_special_tokens"] = False
        answer = await self._served.post(able.endpoint, body)
        choice = answer["choices"][0]
        same = self._same_prompt(request, answer)
        if request.thinking:
            return self._thoughts.read(request, choice, same)
        ids = generated_ids(choice)
        if ids is not None:
            return replace(finish(request, ids, self.eos_ids, self.tokenizer), approximate=not same)
        if able.generated is not None:
            raise DarumeruError(
                f"The server at {self._served.base_url} returns no token ids for '{request.id}' any more."
            )
        return self._from_text(request, choice)

    def _drawing(self, request: Request) -> dict[str, Any]:
        """How the request's tokens are drawn; a server may ignore the seed.

        Raises:
            UserError: the server does not know a setting.
        """
        if request.sampling is None:
            return {}
        settings = asdict(request.sampling)
        if not self.abilities.extras:
            for name in ("top_k", "min_p"):
                if settings.pop(name):
                    raise UserError(
                        f"The server at {self._served.base_url} is not known to take {name}, which only vLLM's is. Leave "
                        f"--{name.replace('_', '-')} out (with --sampling model: --{name.replace('_', '-')} 0)."
                    )
        return settings | {"seed": request.seed}

    def _same_prompt(self, request: Request, answer: dict[str, Any]) -> bool:
        """Return whether the model saw the tokens of our prompt.

        Raises:
            UserError: it did not, and approximate answers were not allowed.
        """
        if self.abilities.prompts == "tokens":
            return True
        theirs = answer.get("prompt_token_ids", answer["choices"][0].get("prompt_token_ids"))
        ours = list(request.prompt)
        if request.thinking and ours[-len(self._thoughts.opening) :] == list(self._thoughts.opening):
            ours = ours[: -len(self._thoughts.opening)]  # the server leaves it to the model
        if isinstance(theirs, list):
            same, count = theirs == ours, len(theirs)
        else:
            count = usage(answer, "prompt_tokens") or 0
            same = count == len(ours)
        if not same and not self._approximate:
            raise UserError(
                f"The server made {count} tokens of the prompt of '{request.id}', ours are {len(ours)}"
                f"{', other ones' if count == len(ours) else ''}: it writes prompts in another way, so its answers "
                "could not be compared. --approximate accepts them, and the record says so."
            )
        return same

    def _conversation(self, request: Request) -> dict[str, Any]:
        """The messages of a request, for a server with a chat template of its own."""
        if not request.messages or not self.tokenizer.chat_template:
            raise UserError(
                f"The server at {self._served.base_url} only chats (/chat/completions), and the prompt of '{request.id}' is no "
                "conversation (it was truncated, or --mode is foundation). Use --mode instruct and a larger --max-prompt-len, "
                "or a server with /v1/completions."
            )
        messages = list(request.messages)
        args = {"chat_template_kwargs": self._template_args} if self._template_args else {}
        if messages[-1]["role"] != "assistant":
            return {"messages": messages, **args}
        if self.abilities.extras and not request.thinking:
            return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True, **args}
        # Others would answer the unfinished turn instead of going on with it; and a thought comes before the turn begins.
        return {"messages": messages[:-1], **args}

    def _from_text(self, request: Request, choice: dict[str, Any]) -> Answer:
        """An answer whose tokens are those that our tokenizer makes of its text."""
        text, thought = content(choice), reasoning(choice)
        cuts = [at for end in request.until if (at := text.find(end)) >= 0]
        text = text[: min(cuts)] if cuts else text
        by_itself = bool(cuts) or choice.get("finish_reason") != "length"
        tokens = self._encode(text)
        if request.stop in tokens:
            tokens, by_itself = tokens[: tokens.index(request.stop) + 1], True
            text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        answer = Answer(
            request.id, text=text, tokens=tokens, finish="stop" if by_itself else "length", approximate=True
        )
        if not thought:
            return answer
        # It thought all the same. Reasoning alone is no answer.
        answer = replace(answer, thought=thought, thought_tokens=self._encode(thought))
        return answer if text.strip() else replace(answer, text="", tokens=(), finish="length", unfinished=True)

    def _encode(self, text: str) -> Tokens:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # -- choose

    async def _choose(self, request: Request) -> Answer:
        """All labels of a question from one call, where each is one token."""
        found = await self._grown(request, label_tree(request.labels))
        return Answer(request.id, logprobs=label_logprobs(request.labels, found))

    async def _grown(self, request: Request, tree: dict[Tokens, Tokens]) -> dict[Tokens, dict[int, float]]:
        """The log-probabilities of the wanted tokens after each prefix of a `label_tree`."""
        parts = [(prefix, chunk) for prefix, wanted in tree.items() for chunk in _chunks(wanted, MAX_LABEL_TOKENS)]
        # The first call has the server compute the prompt, the others read it from its prefix cache.
        rows = [await self._next(request, *parts[0])]
        rows += await _all(self._next(request, prefix, chunk) for prefix, chunk in parts[1:])
        found: dict[Tokens, dict[int, float]] = {}
        for (prefix, _), row in zip(parts, rows, strict=True):
            found.setdefault(prefix, {}).update(row)
        return found

    async def _next(self, request: Request, prefix: Tokens, wanted: Tokens) -> dict[int, float]:
        """The log-probabilities of wanted tokens after a prompt."""
        answer = await self._complete(
            {
                "prompt": list(request.prompt + prefix),
                "max_tokens": 1,
                "logprobs": 1,
                "logprob_token_ids": list(wanted),
                "return_tokens_as_token_ids": True,
            }
        )
        tops = first_tops(answer["choices"][0])
        try:
            return {token: logprob(tops[f"token_id:{token}"]) for token in wanted}
        except KeyError:
            raise self._lost(request) from None

    def _lost(self, request: Request) -> DarumeruError:
        return DarumeruError(
            f"The server at {self._served.base_url} left log-probabilities out of its answer to '{request.id}', although it "
            "gave them at the start. The answers so far are kept."
        )

    async def _choose_by_continuations(self, request: Request) -> Answer:
        """Each spelling scored as a given text: exact as well, but a call a spelling."""
        spellings = list(dict.fromkeys(s for label in request.labels for s in label))
        rows = await _all(self._rows(request, s) for s in spellings)
        sums = {s: sum(v for v, _ in row) for s, row in zip(spellings, rows, strict=True)}
        return Answer(request.id, logprobs=tuple(max(sums[s] for s in label) for label in request.labels))

    async def _choose_from_top(self, request: Request) -> Answer:
        """Labels among the most probable next tokens; what is not among them is at most as probable as the last of them."""
        tree = label_tree(request.labels)
        rows = await _all(self._next_top(request, prefix, wanted) for prefix, wanted in tree.items())
        found = dict(zip(tree, rows, strict=True))
        return Answer(request.id, logprobs=label_logprobs(request.labels, found), approximate=True)

    async def _next_top(self, request: Request, prefix: Tokens, wanted: Tokens) -> dict[int, float]:
        """The log-probabilities of wanted tokens after a prompt, or how high they can be at most."""
        prompt = self._prompt(request.prompt + prefix, request)
        extra = {"return_tokens_as_token_ids": True} if self.abilities.extras else {}
        answer = await self._complete({"prompt": prompt, "max_tokens": 1, "logprobs": self.abilities.top, **extra})
        tops = {k: logprob(v) for k, v in first_tops(answer["choices"][0]).items()}
        if not tops:
            raise self._lost(request)
        bound = at_most(tops.values())
        names = {t: (f"token_id:{t}", self.tokenizer.decode([t])) for t in wanted}
        return {t: next((tops[n] for n in names[t] if n in tops), bound) for t in wanted}

    async def _choose_from_chat(self, request: Request) -> Answer:
        """Labels among the first tokens that a chat server finds most probable, by their text."""
        body = self._settings() | self._drawing(request) | self._conversation(request)
        most = 1 + self._thoughts.most_tokens(request)
        body |= {self.abilities.limit: most, "logprobs": True, "top_logprobs": self.abilities.top}
        answer = await self._served.post("chat/completions", body)
        same, choice = self._same_prompt(request, answer), answer["choices"][0]
        thought = Answer(request.id)
        if request.thinking:
            thought = self._thoughts.read(replace(request, max_tokens=1), choice, same)
            if thought.unfinished:
                return replace(thought, approximate=True)
            tops = chat_tops_behind(choice, self.tokenizer.decode([request.thinking.end])) or []
        else:
            tops = chat_tops(choice)
        if not tops:
            raise self._lost(request)
        bound = at_most(v for _, v in tops)
        texts = [self.tokenizer.decode(label[0]).strip() for label in request.labels]
        values = tuple(max((v for t, v in tops if t.strip() == text), default=bound) for text in texts)
        return replace(thought, logprobs=values, text="", tokens=(), finish="", approximate=True)

    # -- rank, likelihood

    async def _rank_growing(self, request: Request) -> Answer:
        """Continuations token by token, where that is cheaper.

        vLLM computes a prompt anew, without its prefix cache, for every call that asks for the log-probabilities of given
        tokens; those of wanted next tokens come with the cache.
        """
        options = request.continuations
        tree = label_tree([(c,) for c in options])
        if len(tree) * CALL_TOKENS >= sum(len(request.prompt) + len(c) for c in options):
            return await self._score(request)
        found = await self._grown(request, tree)
        sums = label_logprobs([(c,) for c in options], found)
        return Answer(request.id, logprobs=tuple(s / len(c) for s, c in zip(sums, options, strict=True)))

    async def _score(self, request: Request) -> Answer:
        rows = await _all(self._rows(request, c) for c in request.continuations)
        sums = tuple(sum(v for v, _ in row) for row in rows)
        if request.kind == "likelihood":
            return Answer(request.id, logprobs=sums, greedy=tuple(all(best for _, best in row) for row in rows))
        return Answer(request.id, logprobs=tuple(s / len(row) for s, row in zip(sums, rows, strict=True)))

    async def _rows(self, request: Request, tail: Tokens) -> list[tuple[float, bool]]:
        """For each token of a continuation its log-probability and whether it is the most probable one."""
        prompt = list(request.prompt + tail)
        if self.abilities.continuations == "echo":
            body = {"prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1}
            return echo_rows((await self._complete(body))["choices"][0], len(prompt), len(tail))
        answer = await self._complete({"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0})
        rows = answer["choices"][0].get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(prompt):
            raise self._lost(request)
        try:
            entries = [row[str(token)] for row, token in zip(rows[-len(tail) :], tail, strict=True)]
            return [(logprob(e["logprob"]), e.get("rank") == 1) for e in entries]
        except (KeyError, TypeError):
            raise self._lost(request) from None


async def _all(work: Iterable[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _chunks(values: Tokens, size: int) -> list[Tokens]:
    return [values[i : i + size] for i in range(0, len(values), size)]
