"""Abilities of a server, found by trying it out before the first question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from darumeru.engines.api.client import Refused
from darumeru.engines.api.reading import chat_tops, echo_rows, first_tops, generated_ids, usage
from darumeru.engines.api.served import ServedModel
from darumeru.errors import DarumeruError, UserError

PROBE = "Столица России — Москва. 2 + 2 = 4"
"""A text to try out a server with; its tokens differ between any two tokenizers."""


@dataclass(frozen=True)
class Abilities:
    """Abilities of a server, as found by trying it out."""

    endpoint: Literal["completions", "chat/completions"]
    prompts: Literal["tokens", "text", "messages"]
    extras: bool = False
    """True if it takes vLLM's parameters beside OpenAI's."""
    generated: Literal["token_ids", "token_id strings"] | None = None
    """Place of the ids of generated tokens; None: nowhere."""
    labels: Literal["logprob_token_ids"] | None = None
    """Way to the log-probability of a wanted next token; None: only as a continuation's, if at all."""
    continuations: Literal["prompt_logprobs", "echo"] | None = None
    """Way to the log-probabilities of given tokens."""
    top: int = 0
    """Number of most probable next tokens it tells; looked for only where approximate answers are allowed."""
    adds: int = 0
    """Special tokens that it puts before a text by itself."""
    limit: str = "max_tokens"
    """Its name for the most tokens to generate."""
    template_args: bool = False
    """True if it gives our arguments to its chat template; looked for only where there are some."""


async def try_out(
    served: ServedModel, encode: Callable[[str], list[int]], approximate: bool, template_args: Mapping[str, Any] = {}
) -> Abilities:
    """Return what a server can do, and see to it that its tokenizer is ours.

    Args:
        served: the model, found.
        encode: our tokenizer, without special tokens.
        approximate: look for what gives inexact numbers too.
        template_args: what its chat template is to be given, if it renders conversations itself.

    Raises:
        UserError: it has another tokenizer, neither completes nor chats, or chats and does not take the arguments.
    """
    return await _Trial(served, encode(PROBE), approximate, template_args).run()


class _Trial:
    def __init__(
        self, served: ServedModel, ids: list[int], approximate: bool, template_args: Mapping[str, Any]
    ) -> None:
        self._served = served
        self._ids = ids
        self._approximate = approximate
        self._template_args = template_args

    async def run(self) -> Abilities:
        text = await self._try_text()
        if isinstance(text, Refused):
            return await self._try_chat(text)
        adds, extras = text
        ids = self._ids
        able = await self._try_tokens(ids)
        if able is None:
            able = Abilities("completions", "text", extras, "token_ids" if extras else None, adds=adds)
        if able.prompts == "tokens" and able.continuations is None and await self._echoes(ids):
            able = replace(able, continuations="echo")
        if self._approximate and not (able.labels or able.continuations):
            prompt: Any = ids if able.prompts == "tokens" else PROBE
            for top in (20, 5, 1):
                found = await self._served.attempt("completions", {"prompt": prompt, "logprobs": top, "max_tokens": 1})
                if not isinstance(found, Refused) and first_tops(found[1]["choices"][0]):
                    return replace(able, top=top)
        return able

    async def _try_text(self) -> tuple[int, bool] | Refused:
        """Compare the server's tokenizer with ours.

        Returns:
            How many special tokens it adds to a text, and whether it takes vLLM's parameters and returns token ids; or how
            it refused.
        """
        plain = {"prompt": PROBE, "max_tokens": 1, "temperature": 0.0}
        found = await self._served.attempt(
            "completions", plain | {"add_special_tokens": False, "return_token_ids": True}, plain
        )
        if isinstance(found, Refused):
            return found
        ids = self._ids
        theirs = found[1]["choices"][0].get("prompt_token_ids")
        if isinstance(theirs, list):
            if theirs != ids:
                raise self._other_tokenizer(len(theirs), len(ids))
            return 0, isinstance(found[1]["choices"][0].get("token_ids"), list)
        count = usage(found[1], "prompt_tokens")
        adds = 0 if count is None else count - len(ids)
        if not 0 <= adds <= 2:
            raise self._other_tokenizer(len(ids) + adds, len(ids))
        return adds, False

    def _other_tokenizer(self, theirs: int, ours: int) -> UserError:
        return UserError(
            f"The server's model '{self._served.name}' has another tokenizer than --model: of one text it makes {theirs} tokens, "
            f"ours {ours}{', other ones' if theirs == ours else ''}. Give the folder or hub id of the served model as --model."
        )

    async def _try_tokens(self, ids: list[int]) -> Abilities | None:
        """Return what the server can do with prompts of token ids; None if it takes none."""
        wanted = sorted(set(ids))[:2]
        plain = {"prompt": ids, "max_tokens": 1, "temperature": 0.0}
        more = {"logprobs": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}
        scores = {"logprob_token_ids": wanted, "prompt_logprobs": 0}
        found = await self._served.attempt("completions", plain | more | scores, plain | more, plain)
        if isinstance(found, Refused):
            return None
        number, answer = found
        count = usage(answer, "prompt_tokens")
        if count is not None and count != len(ids):
            return None  # it read the numbers as text
        choice = answer["choices"][0]
        generated = generated_ids(choice)
        tops = first_tops(choice)
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
        """Return whether the server tells the log-probabilities of a prompt's tokens when it repeats them."""
        body = {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0.0}
        found = await self._served.attempt("completions", body)
        if isinstance(found, Refused):
            return False
        try:
            return len(echo_rows(found[1]["choices"][0], len(ids), len(ids) - 1)) == len(ids) - 1
        except DarumeruError:
            return False

    async def _try_chat(self, refusal: Refused) -> Abilities:
        plain = {"messages": [{"role": "user", "content": PROBE}], "temperature": 0.0}
        args = {"chat_template_kwargs": dict(self._template_args)} if self._template_args else {}
        ways: list[dict[str, Any]] = [
            {"max_tokens": 1, "return_token_ids": True},
            {"max_tokens": 1},
            {"max_completion_tokens": 1},
        ]
        bodies = [plain | way | args for way in ways] + ([plain | way for way in ways] if args else [])
        found = await self._served.attempt("chat/completions", *bodies)
        if isinstance(found, Refused):
            said = refusal.said if refusal.status and not refusal.missing else found.said
            raise UserError(
                f"The server at {self._served.base_url} neither completes nor chats with '{self._served.name}' "
                f"(status {refusal.status} and {found.status}): {said}"
            )
        number, answer = found
        choice, way = answer["choices"][0], ways[number % len(ways)]
        taken = bool(args) and number < len(ways)
        if args and not taken and not self._approximate:
            given = ", ".join(f"{key}={value}" for key, value in self._template_args.items())
            raise UserError(
                f"The server at {self._served.base_url} only chats (/chat/completions) and does not take arguments of its "
                f"chat template ({given}): it thinks or not as it was started. vLLM's server takes them "
                "(chat_template_kwargs). --approximate accepts how it was started, and the record says so."
            )
        ids = "return_token_ids" in way and isinstance(choice.get("token_ids"), list)
        able = Abilities(
            "chat/completions",
            "messages",
            extras=ids,
            generated="token_ids" if ids else None,
            limit="max_tokens" if "max_tokens" in way else "max_completion_tokens",
            template_args=taken,
        )
        if self._approximate:
            for top in (20, 5):
                body = plain | {able.limit: 1, "logprobs": True, "top_logprobs": top}
                tried = await self._served.attempt("chat/completions", body)
                if not isinstance(tried, Refused) and chat_tops(tried[1]["choices"][0]):
                    return replace(able, top=top)
        return able
