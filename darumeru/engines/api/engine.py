"""The API engine: a model behind an OpenAI-compatible server, asked in token ids, exactly where the server can."""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import re
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from darumeru.engines.api.client import Client, NotJson, Patience, Refused
from darumeru.engines.base import Engine, EngineOptions, Server, finish, label_logprobs, label_tree
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Kind, Request, Tokens

log = logging.getLogger(__name__)

MAX_LABEL_TOKENS = 128
"""The most token ids that vLLM's server takes in one `logprob_token_ids`."""

PROBE = "Столица России — Москва. 2 + 2 = 4"
"""A text to try out a server with; its tokens differ between any two tokenizers."""

MAX_FAULTS = 20
"""So many requests that a server refuses in one run are no accident."""

CALL_TOKENS = 64
"""What a call costs whose prompt is in the server's prefix cache, in tokens to compute: the last block of the cache is not full,
and HTTP is not free. With vLLM on two busy CPU cores it was 0.12 s at 450 tokens/s, about 52 tokens."""

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_TOO_LONG = re.compile(r"context length|context window|context size|too many tokens|max_model_len|too long", re.I)

# What a server's defaults, taken from the model's own generation settings, would otherwise change about greedy answers.
_GREEDY = {"temperature": 0.0, "top_p": 1.0}
_GREEDY_VLLM = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


@dataclass(frozen=True)
class Abilities:
    """What a server turned out to be able to do."""

    endpoint: Literal["completions", "chat/completions"]
    prompts: Literal["tokens", "text", "messages"]
    extras: bool = False
    """Whether it takes vLLM's parameters beside OpenAI's."""
    generated: Literal["token_ids", "token_id strings"] | None = None
    """Where the ids of generated tokens stand; None: nowhere."""
    labels: Literal["logprob_token_ids"] | None = None
    """How the log-probability of a wanted next token is had; None: only as a continuation's, if at all."""
    continuations: Literal["prompt_logprobs", "echo"] | None = None
    """How the log-probabilities of given tokens are had."""
    top: int = 0
    """How many most probable next tokens it tells; looked for only where approximate answers are allowed."""
    adds: int = 0
    """Special tokens that it puts before a text by itself."""
    limit: str = "max_tokens"
    """What it calls the most tokens to generate."""


class APIEngine(Engine):
    """A model that an OpenAI-compatible server answers for.

    Args:
        model: the folder of the model's configuration and tokenizer.
        tokenizer: its tokenizer.
        eos_ids: the tokens that end an answer.
        options: `server` is needed; `model_args` are those of `Patience`.

    Raises:
        UserError: the server wants another key, serves another model, has another tokenizer or too short a context, or is
            no such server.
        DarumeruError: it cannot be reached, or fails.
    """

    name = "api"
    interleaves = True

    def __init__(self, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        if options.server is None:
            raise UserError("The api engine needs a server: --base-url http://HOST:PORT/v1.")
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        self.server: Server = options.server
        self._client = Client(self.server, Patience.of(options.model_args))
        self.base_url = self._client.base
        try:
            self._client.wait(self._greet())
        except BaseException:
            self._client.close()
            raise

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return {
            "engine": self.name,
            "base_url": self.base_url,
            "served_model": self.served,
            "server_version": self._version,
            "server_context_len": self._context,
            "approximate_allowed": self.server.approximate,
            "abilities": asdict(self.abilities),
            "model_args": asdict(self._client.patience),
        }

    def close(self) -> None:
        """Drop all connections; the server goes on."""
        self._client.close()

    # -- start-up -----------------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """Find the model, compare tokenizer and context, try out what the server can do."""
        card = await self._card()
        self.served = str(card["id"])
        context = card.get("max_model_len")
        self._context = context if isinstance(context, int) else None
        if self._context is not None and self._context < self.options.max_len:
            raise UserError(
                f"The server's context is {self._context} tokens, and this run needs {self.options.max_len} for its longest "
                f"prompt with its answer. Start the server with a longer one (vLLM: --max-model-len {self.options.max_len}), "
                "or give a smaller --max-prompt-len."
            )
        self.abilities = await self._try_out()
        self._version = await self._ask_version()
        log.debug("%s can: %s", self.base_url, self.abilities)

    async def _card(self) -> dict[str, Any]:
        """The server's entry for the model asked for."""
        listed = await self._models()
        by_name = {str(entry["id"]): entry for entry in listed}
        for name in (self.server.model, *self.server.aliases):
            if name in by_name:
                return by_name[name]
        names = ", ".join(f"'{n}'" for n in by_name) or "nothing"
        raise UserError(
            f"The server at {self.base_url} does not serve '{self.server.model}'. It serves: {names}. "
            "Give the right one with --served-model."
        )

    async def _models(self) -> list[dict[str, Any]]:
        problem = "has no list of models (/models)"
        bases = [self._client.base] + ([] if self._client.base.endswith("/v1") else [f"{self._client.base}/v1"])
        for base in bases:
            self._client.base = base
            try:
                listed = (await self._client.get("/models", patient=False)).get("data")
            except Refused as error:
                if not error.missing:
                    raise DarumeruError(f"The server at {base} answers {error.status}: {error.said}") from None
                continue
            except NotJson as error:
                problem = f"answers with {error}"
                continue
            if isinstance(listed, list) and all(isinstance(e, dict) and "id" in e for e in listed):
                self.base_url = base
                return listed
            problem = "answers with JSON that is no list of models"
        raise UserError(
            f"What is at {self.base_url} {problem}, so it is no OpenAI-compatible API. "
            "--base-url usually ends in /v1, such as http://127.0.0.1:8000/v1."
        )

    async def _ask_version(self) -> str | None:
        """The server's version, where it tells (vLLM does, beside /v1)."""
        base = self._client.base
        try:
            self._client.base = base.removesuffix("/v1")
            version = (await self._client.get("/version", patient=False)).get("version")
        except (Refused, NotJson, DarumeruError):
            return None
        finally:
            self._client.base = base
        return str(version)[:100] if version else None

    async def _attempt(self, path: str, *bodies: dict[str, Any]) -> tuple[int, dict[str, Any]] | Refused:
        """The first of some bodies that the server takes, and its answer; else why it refused the last."""
        refusal = Refused(0, "")
        for number, body in enumerate(bodies):
            try:
                return number, await self._post(path, body, patient=False)
            except Refused as error:
                refusal = error
                if error.missing:
                    break
        return refusal

    async def _post(self, path: str, body: dict[str, Any], *, patient: bool = True) -> dict[str, Any]:
        """Ask the model.

        Raises:
            Refused: the server will not.
            DarumeruError: what came back is no answer.
        """
        try:
            answer = await self._client.post(f"/{path}", {"model": self.served, **body}, patient=patient)
        except NotJson as error:
            raise DarumeruError(
                f"The server at {self.base_url} answers with {error}. The answers so far are kept."
            ) from None
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise DarumeruError(f"The server at {self.base_url} answers without a choice. The answers so far are kept.")
        return answer

    async def _try_out(self) -> Abilities:
        text = await self._try_text()
        if isinstance(text, Refused):
            return await self._try_chat(text)
        adds, extras = text
        ids = self._encode(PROBE, False)
        able = await self._try_tokens(ids)
        if able is None:
            able = Abilities("completions", "text", extras, "token_ids" if extras else None, adds=adds)
        if able.prompts == "tokens" and able.continuations is None and await self._echoes(ids):
            able = replace(able, continuations="echo")
        if self.server.approximate and not (able.labels or able.continuations):
            prompt: Any = ids if able.prompts == "tokens" else PROBE
            for top in (20, 5, 1):
                found = await self._attempt("completions", {"prompt": prompt, "logprobs": top, "max_tokens": 1})
                if not isinstance(found, Refused) and _first_tops(found[1]["choices"][0]):
                    return replace(able, top=top)
        return able

    async def _try_text(self) -> tuple[int, bool] | Refused:
        """Compare the server's tokenizer with ours.

        Returns:
            How many special tokens it adds to a text, and whether it takes vLLM's parameters and returns token ids; or how
            it refused.
        """
        plain = {"prompt": PROBE, "max_tokens": 1, "temperature": 0.0}
        found = await self._attempt(
            "completions", plain | {"add_special_tokens": False, "return_token_ids": True}, plain
        )
        if isinstance(found, Refused):
            return found
        ids = self._encode(PROBE, False)
        theirs = found[1]["choices"][0].get("prompt_token_ids")
        if isinstance(theirs, list):
            if theirs != ids:
                raise self._other_tokenizer(len(theirs), len(ids))
            return 0, isinstance(found[1]["choices"][0].get("token_ids"), list)
        count = _usage(found[1], "prompt_tokens")
        adds = 0 if count is None else count - len(ids)
        if not 0 <= adds <= 2:
            raise self._other_tokenizer(len(ids) + adds, len(ids))
        return adds, False

    def _other_tokenizer(self, theirs: int, ours: int) -> UserError:
        return UserError(
            f"The server's model '{self.served}' has another tokenizer than --model: of one text it makes {theirs} tokens, "
            f"ours {ours}{', other ones' if theirs == ours else ''}. Give the folder or hub id of the served model as --model."
        )

    async def _try_tokens(self, ids: list[int]) -> Abilities | None:
        """What the server can do with prompts of token ids; None if it takes none."""
        wanted = sorted(set(ids))[:2]
        plain = {"prompt": ids, "max_tokens": 1, "temperature": 0.0}
        more = {"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}
        scores = {"logprob_token_ids": wanted, "prompt_logprobs": 0}
        found = await self._attempt("completions", plain | more | scores, plain | more, plain)
        if isinstance(found, Refused):
            return None
        number, answer = found
        count = _usage(answer, "prompt_tokens")
        if count is not None and count != len(ids):
            return None  # it read the numbers as text
        choice = answer["choices"][0]
        generated = _generated(choice)
        tops = _first_tops(choice)
        rows = choice.get("prompt_logprobs")
        return Abilities(
            "completions",
            "tokens",
            extras=number < 2 and generated is not None,
            generated=None if generated is None else "token_ids" if choice.get("token_ids") else "token_id strings",
            labels="logprob_token_ids" if all(f"token_id:{t}" in tops for t in wanted) else None,
            continuations="prompt_logprobs" if isinstance(rows, list) and len(rows) == len(ids) else None,
        )

    async def _echoes(self, ids: list[int]) -> bool:
        """Whether the server tells the log-probabilities of a prompt's tokens when it repeats them."""
        body = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0.0}
        found = await self._attempt("completions", body)
        if isinstance(found, Refused):
            return False
        try:
            return len(_echo_rows(found[1]["choices"][0], len(ids), len(ids) - 1)) == len(ids) - 1
        except DarumeruError:
            return False

    async def _try_chat(self, refusal: Refused) -> Abilities:
        plain = {"messages": [{"role": "user", "content": PROBE}], "temperature": 0.0}
        found = await self._attempt(
            "chat/completions",
            plain | {"max_tokens": 1, "return_token_ids": True},
            plain | {"max_tokens": 1},
            plain | {"max_completion_tokens": 1},
        )
        if isinstance(found, Refused):
            said = refusal.said if refusal.status and not refusal.missing else found.said
            raise UserError(
                f"The server at {self.base_url} neither completes nor chats with '{self.served}' "
                f"(status {refusal.status} and {found.status}): {said}"
            )
        number, answer = found
        choice = answer["choices"][0]
        ids = number == 0 and isinstance(choice.get("token_ids"), list)
        able = Abilities(
            "chat/completions",
            "messages",
            extras=ids,
            generated="token_ids" if ids else None,
            limit="max_completion_tokens" if number == 2 else "max_tokens",
        )
        if self.server.approximate:
            for top in (20, 5):
                body = plain | {able.limit: 1, "logprobs": True, "top_logprobs": top}
                tried = await self._attempt("chat/completions", body)
                if not isinstance(tried, Refused) and _chat_tops(tried[1]["choices"][0]):
                    return replace(able, top=top)
        return able

    # -- answers ------------------------------------------------------------------------------------------------------

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`. So many calls as `concurrency` says are under way at once.

        Raises:
            UserError: the server cannot answer such requests exactly, and approximate answers were not allowed.
            DarumeruError: it failed; what it had answered before was yielded.
        """
        todo = [r for r in requests if r.id not in done]
        ways = {kind: self._way(kind) for kind in dict.fromkeys(r.kind for r in todo)}
        # The long ones first; then prompts in lexicographic order, so that the server's prefix cache is hit.
        todo.sort(key=lambda r: (r.kind != "generate", r.kind == "choose", -r.max_tokens, r.prompt))
        found: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        work = self._client.start(self._work(iter(todo), ways, found.put))
        work.add_done_callback(lambda _: found.put(None))
        try:
            open_ = bool(todo)
            while open_:
                ready = []
                answer = found.get()
                while answer is not None:
                    ready.append(answer)
                    if found.empty():
                        break
                    answer = found.get()
                open_ = answer is not None
                if ready:
                    yield ready
            work.result()
        except CancelledError:
            raise DarumeruError("The server's answers are no longer waited for.") from None
        finally:
            work.cancel()

    async def _work(self, todo: Iterator[Request], ways: Mapping[Kind, _Way], found: Callable[[Answer], None]) -> None:
        faults = 0

        async def worker() -> None:
            nonlocal faults
            for request in todo:
                try:
                    answer = await ways[request.kind](request)
                except Refused as error:
                    if _TOO_LONG.search(error.said):
                        raise UserError(
                            f"The server says that a prompt of {len(request.prompt)} tokens with its answer is too long for "
                            f"it: {error.said} Give a smaller --max-prompt-len. The answers so far are kept."
                        ) from None
                    faults += 1
                    if faults >= MAX_FAULTS:
                        raise DarumeruError(
                            f"The server at {self.base_url} refused {faults} requests, at last with status {error.status}: "
                            f"{error.said} The answers so far are kept."
                        ) from None
                    answer = Answer(
                        request.id, error=f"the server refused '{request.id}' ({error.status}): {error.said}"
                    )
                found(answer)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._client.patience.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    def _way(self, kind: Kind) -> _Way:
        """How requests of a kind are answered here.

        Raises:
            UserError: they cannot be, or not exactly, and approximate answers were not allowed.
        """
        able, loose = self.abilities, self.server.approximate
        chat = able.prompts == "messages"
        where = f"The server at {self.base_url}" + (" only chats (/chat/completions): it" if chat else "")
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
        text = request.text + self.tokenizer.decode(tokens[len(request.prompt) :])
        bos = self.tokenizer.bos_token or ""
        return text.removeprefix(bos) if self.abilities.adds and bos else text

    def _settings(self) -> dict[str, Any]:
        return _GREEDY | (_GREEDY_VLLM if self.abilities.extras else {})

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        return await self._post("completions", self._settings() | body)

    # -- generate

    async def _generate(self, request: Request) -> Answer:
        able = self.abilities
        body: dict[str, Any] = self._settings() | {able.limit: request.max_tokens}
        if request.until:
            body["stop"] = list(request.until)
        if able.extras:
            body |= {"return_token_ids": True, "stop_token_ids": sorted(self.eos_ids)}
        if able.generated == "token_id strings":
            body |= {"logprobs": 1, "return_tokens_as_token_ids": True}
        if able.prompts == "messages":
            body |= self._conversation(request)
        else:
            body["prompt"] = self._prompt(request.prompt, request)
            if able.prompts == "text" and able.extras:
                body["add_special_tokens"] = False
        answer = await self._post(able.endpoint, body)
        choice = answer["choices"][0]
        same = self._same_prompt(request, answer)
        ids = _generated(choice)
        if ids is not None:
            return replace(finish(request, ids, self.eos_ids, self.tokenizer), approximate=not same)
        if able.generated is not None:
            raise DarumeruError(f"The server at {self.base_url} returns no token ids for '{request.id}' any more.")
        return self._from_text(request, choice)

    def _same_prompt(self, request: Request, answer: dict[str, Any]) -> bool:
        """Whether the model saw the tokens of our prompt.

        Raises:
            UserError: it did not, and approximate answers were not allowed.
        """
        if self.abilities.prompts == "tokens":
            return True
        theirs = answer.get("prompt_token_ids", answer["choices"][0].get("prompt_token_ids"))
        if isinstance(theirs, list):
            same, count = theirs == list(request.prompt), len(theirs)
        else:
            count = _usage(answer, "prompt_tokens") or 0
            same = count == len(request.prompt)
        if not same and not self.server.approximate:
            raise UserError(
                f"The server made {count} tokens of the prompt of '{request.id}', ours are {len(request.prompt)}"
                f"{', other ones' if count == len(request.prompt) else ''}: it writes prompts in another way, so its answers "
                "could not be compared. --approximate accepts them, and the record says so."
            )
        return same

    def _conversation(self, request: Request) -> dict[str, Any]:
        """The messages of a request, for a server with a chat template of its own."""
        if not request.messages or not self.tokenizer.chat_template:
            raise UserError(
                f"The server at {self.base_url} only chats (/chat/completions), and the prompt of '{request.id}' is no "
                "conversation (it was cut, or --mode is foundation). Use --mode instruct and a larger --max-prompt-len, or a "
                "server with /v1/completions."
            )
        messages = list(request.messages)
        if messages[-1]["role"] != "assistant":
            return {"messages": messages}
        if self.abilities.extras:
            return {"messages": messages, "add_generation_prompt": False, "continue_final_message": True}
        # Others would answer the unfinished turn instead of going on with it.
        return {"messages": messages[:-1]}

    def _from_text(self, request: Request, choice: dict[str, Any]) -> Answer:
        """An answer whose tokens are those that our tokenizer makes of its text."""
        text = choice.get("text")
        if text is None:
            text = (choice.get("message") or {}).get("content") or ""
        cuts = [at for end in request.until if (at := text.find(end)) >= 0]
        text = text[: min(cuts)] if cuts else text
        by_itself = bool(cuts) or choice.get("finish_reason") != "length"
        tokens = tuple(self._encode(text, False))
        return Answer(request.id, text=text, tokens=tokens, finish="stop" if by_itself else "length", approximate=True)

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
        tops = _first_tops(answer["choices"][0])
        try:
            return {token: _logprob(tops[f"token_id:{token}"]) for token in wanted}
        except KeyError:
            raise self._lost(request) from None

    def _lost(self, request: Request) -> DarumeruError:
        return DarumeruError(
            f"The server at {self.base_url} left log-probabilities out of its answer to '{request.id}', although it gave them "
            "at the start. The answers so far are kept."
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
        tops = {k: _logprob(v) for k, v in _first_tops(answer["choices"][0]).items()}
        if not tops:
            raise self._lost(request)
        bound = _at_most(tops.values())
        names = {t: (f"token_id:{t}", self.tokenizer.decode([t])) for t in wanted}
        return {t: next((tops[n] for n in names[t] if n in tops), bound) for t in wanted}

    async def _choose_from_chat(self, request: Request) -> Answer:
        """Labels among the first tokens that a chat server finds most probable, by their text."""
        body = self._settings() | self._conversation(request)
        body |= {self.abilities.limit: 1, "logprobs": True, "top_logprobs": self.abilities.top}
        answer = await self._post("chat/completions", body)
        self._same_prompt(request, answer)
        tops = _chat_tops(answer["choices"][0])
        if not tops:
            raise self._lost(request)
        bound = _at_most(v for _, v in tops)
        texts = [self.tokenizer.decode(label[0]).strip() for label in request.labels]
        values = tuple(max((v for t, v in tops if t.strip() == text), default=bound) for text in texts)
        return Answer(request.id, logprobs=values, approximate=True)

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
            return _echo_rows((await self._complete(body))["choices"][0], len(prompt), len(tail))
        answer = await self._complete({"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0})
        rows = answer["choices"][0].get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(prompt):
            raise self._lost(request)
        try:
            entries = [row[str(token)] for row, token in zip(rows[-len(tail) :], tail, strict=True)]
            return [(_logprob(e["logprob"]), e.get("rank") == 1) for e in entries]
        except (KeyError, TypeError):
            raise self._lost(request) from None


_Way = Callable[[Request], Awaitable[Answer]]


async def _all(work: Iterable[Awaitable[Any]]) -> list[Any]:
    return list(await asyncio.gather(*work))


def _chunks(values: Tokens, size: int) -> list[Tokens]:
    return [values[i : i + size] for i in range(0, len(values), size)]


# -- what stands where in an answer -----------------------------------------------------------------------------------


def _logprob(value: Any) -> float:
    """A log-probability out of an answer.

    Raises:
        DarumeruError: it can be none.
    """
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if math.isnan(number) or number > 1e-3:
        raise DarumeruError(
            f"The server gives {value!r} as a log-probability. If it is vLLM's, start it without --logprobs-mode (logits are "
            "no log-probabilities). The answers so far are kept."
        )
    return number


def _usage(answer: dict[str, Any], what: str) -> int | None:
    count = (answer.get("usage") or {}).get(what)
    return count if isinstance(count, int) else None


def _first_tops(choice: dict[str, Any]) -> dict[str, Any]:
    """The most probable (or wanted) first tokens of a completion."""
    rows = (choice.get("logprobs") or {}).get("top_logprobs")
    return rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}


def _chat_tops(choice: dict[str, Any]) -> list[tuple[str, float]]:
    """The most probable first tokens of a chat answer."""
    rows = (choice.get("logprobs") or {}).get("content")
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    return [(str(t["token"]), _logprob(t["logprob"])) for t in first.get("top_logprobs") or []]


def _generated(choice: dict[str, Any]) -> list[int] | None:
    """The ids of the generated tokens, if they are told."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and all(isinstance(i, int) for i in ids):
        return ids
    names = (choice.get("logprobs") or {}).get("tokens")
    if not isinstance(names, list):
        return None
    matches = [_TOKEN_ID.fullmatch(str(n)) for n in names]
    return [int(m[1]) for m in matches if m] if all(matches) else None


def _echo_rows(choice: dict[str, Any], length: int, tail: int) -> list[tuple[float, bool]]:
    """For the last `tail` tokens of a repeated prompt of `length`: log-probability, and whether it is the highest.

    Raises:
        DarumeruError: they are not there.
    """
    logprobs = choice.get("logprobs") or {}
    values, tops = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    if not isinstance(values, list) or len(values) != length or not isinstance(tops, list) or len(tops) != length:
        raise DarumeruError("The server does not repeat the prompt's tokens with their log-probabilities.")
    found = []
    for value, top in zip(values[-tail:], tops[-tail:], strict=True):
        number = _logprob(value)
        found.append((number, number >= max((_logprob(v) for v in (top or {}).values()), default=number)))
    return found


def _at_most(tops: Iterable[float]) -> float:
    """The highest log-probability that a token can have that is not among the most probable ones."""
    values = list(tops)
    rest = 1.0 - sum(math.exp(v) for v in values)
    return min(*values, math.log(rest)) if rest > 0 and values else min(values, default=-math.inf)
