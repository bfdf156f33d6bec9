"""One server of a model: found, tried out, and asked in the ways that it can."""

from __future__ import annotations

from typing import Any

from darumeru.engines.api.abilities import PROBE, Abilities, try_out
from darumeru.engines.api.client import Client, Patience
from darumeru.engines.api.probe import Said, probe
from darumeru.engines.api.served import ServedModel
from darumeru.engines.api.ways import Ways
from darumeru.engines.base import EngineOptions, Server
from darumeru.errors import UserError


class Endpoint:
    """A server; `start` comes before all questions.

    Args:
        base: its address.
        server: what is wanted of it.
        patience: how to ask it.
        tokenizer: the model's.
        eos_ids: the tokens that end an answer.
        options: how long its context must be, and what its chat template is given.

    Raises:
        UserError: a package is missing, or there is no API key where one was promised.
    """

    abilities: Abilities
    """What it can do."""
    ways: Ways
    """How it is asked."""

    def __init__(
        self,
        base: str,
        server: Server,
        patience: Patience,
        tokenizer: Any,
        eos_ids: frozenset[int],
        options: EngineOptions,
    ) -> None:
        self.client = Client(base, server.api_key_env, patience)
        self.served = ServedModel(self.client, server)
        self._approximate = server.approximate
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._options = options

    async def start(self) -> None:
        """Find the model, compare tokenizer and context, try out what the server can do.

        Raises:
            UserError: it wants another key, serves another model, has another tokenizer or too short a context, or is no such
                server.
            Gone: it does not answer.
            DarumeruError: it fails.
        """
        await self.served.find()
        context, longest = self.served.context, self._options.max_len
        if context is not None and context < longest:
            raise UserError(
                f"The server's context is {context} tokens, and this run needs {longest} for its longest prompt with its "
                f"answer ({self.served.base_url}). Start the server with a longer one (vLLM: --max-model-len {longest}), or give "
                "a smaller --max-prompt-len."
            )
        self.abilities = await try_out(self.served, self._encode, self._approximate, self._options.template_args)
        self.ways = Ways(self.served, self.abilities, self._tokenizer, self._eos_ids, self._options)

    async def probe(self) -> Said:
        """Return what it says to the probe; see `probe`."""
        return await probe(self.served, self.abilities, self._encode(PROBE))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def describe(self) -> dict[str, Any]:
        """Return what a record states of it."""
        return {
            "base_url": self.served.base_url,
            "served_model": self.served.name,
            "server_version": self.served.version,
            "server_context_len": self.served.context,
        }
