"""The API engine: a model behind an OpenAI-compatible server, asked in token ids, exactly where the server can."""

from __future__ import annotations

import logging
import queue
import re
from collections.abc import Awaitable, Callable, Collection, Container, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from darumeru.engines.api.abilities import Abilities
from darumeru.engines.api.background import Background
from darumeru.engines.api.client import Patience, Refused, read_key, server_url
from darumeru.engines.api.endpoint import Endpoint
from darumeru.engines.api.servers import Servers
from darumeru.engines.base import Engine, EngineOptions, Server, ServerSettings
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Kind, Request

log = logging.getLogger(__name__)

MAX_FAULTS = 20
"""So many requests that a server refuses in one run are no accident."""

_TOO_LONG = re.compile(r"context length|context window|context size|too many tokens|max_model_len|too long", re.I)


class APIEngine(Engine):
    """A model that an OpenAI-compatible server answers for, or several servers.

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
    needs_server = True
    interleaves = True
    follows = True

    def __init__(self, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> None:
        super().__init__()
        if options.server is None:
            raise UserError("The api engine needs a server: --base-url http://HOST:PORT/v1.")
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids
        self.options = options
        self.server: Server = options.server
        patience = Patience.of(options.model_args)
        bases = (self.server.base_url, *self.server.others)
        # What one of several servers does not answer is asked of another, not again.
        each = replace(patience, retries=0) if self.server.others else patience
        endpoints = [Endpoint(base, self.server, each, tokenizer, eos_ids, options) for base in bases]
        self._servers = Servers(endpoints, patience)
        self._background = Background()
        try:
            self._background.wait(self._servers.start())
        except BaseException:
            self.close()
            raise
        # Who renders conversations goes on with none that holds a thought: thought and answer come from one call.
        self.thinks = self.abilities.prompts == "messages"
        log.debug("%s can: %s", self._servers.first.served.base_url, self.abilities)

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return the names of `Patience`."""
        return Patience.__dataclass_fields__

    @classmethod
    def check_args(cls, model_args: Mapping[str, Any]) -> None:
        """See `Engine.check_args`; values out of range are refused too."""
        Patience.of(dict(model_args))

    @classmethod
    def server_of(cls, settings: ServerSettings) -> Server:
        """See `Engine.server_of`."""
        given = settings.base_url
        addresses = [server_url(url) for url in ((given,) if isinstance(given, str) else given or ()) if url]
        if not addresses:
            raise UserError("--engine api needs the server's address: --base-url http://HOST:PORT/v1.")
        for option, chosen in (("--dtype", settings.dtype), ("--device", settings.device)):
            if chosen != "auto":
                raise UserError(
                    f"{option} '{chosen}' is the server's to decide: start the server so, and leave it out here."
                )
        for url in addresses:
            if addresses.count(url) > 1:
                raise UserError(f"--base-url {url} is given twice: each server is named once.")
        cls.check_args(settings.model_args)
        read_key(settings.api_key_env)
        return Server(
            addresses[0],
            settings.served_model or "",
            others=tuple(addresses[1:]),
            api_key_env=settings.api_key_env,
            approximate=settings.approximate,
        )

    @property
    def abilities(self) -> Abilities:
        """What the server can do; several can do the same."""
        return self._servers.first.abilities

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        facts = {
            "engine": self.name,
            **self._servers.first.describe(),
            "approximate_allowed": self.server.approximate,
            "abilities": asdict(self.abilities),
            "model_args": asdict(self._servers.patience),
        }
        return facts if self._servers.alone else facts | {"servers": [e.describe() for e in self._servers.serving]}

    def close(self) -> None:
        """Drop all connections; the server stays."""
        self._background.close(self._servers.close())

    def check_kinds(self, kinds: Collection[Kind]) -> None:
        """See `Engine.check_kinds`."""
        for kind in sorted(kinds):
            self._servers.first.ways.of(kind)

    def answers(
        self,
        requests: Sequence[Request],
        done: Container[str] = (),
        follow: Callable[[Answer], Request | None] | None = None,
    ) -> Iterator[list[Answer]]:
        """See `Engine.answers`. So many calls as `concurrency` says are under way at once, on each server.

        What follows an answer (`Engine.follows`) is asked at once: the server may still have its prompt in the prefix cache.

        Raises:
            UserError: the server cannot answer such requests exactly, and approximate answers were not allowed.
            DarumeruError: it failed; what it had answered before was yielded.
        """
        todo = [r for r in requests if r.id not in done]
        if not self.abilities.extras and any(r.sampling for r in todo):
            log.warning(
                "The server gets a seed with every request, and may ignore it: asked again, answers may differ."
            )
        self.check_kinds({r.kind for r in todo})
        # The long ones first; then prompts in lexicographic order, so that the server's prefix cache is hit.
        todo.sort(key=lambda r: (r.kind != "generate", r.kind == "choose", -r.max_tokens, r.packed))
        found: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        work = self._background.start(self._servers.work(todo, self._asker(), follow or (lambda _: None), found.put))
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

    def _asker(self) -> Callable[[Endpoint, Request], Awaitable[Answer]]:
        """Return what asks a server, and counts what servers refuse."""
        faults = 0

        async def ask(endpoint: Endpoint, request: Request) -> Answer:
            nonlocal faults
            try:
                return await endpoint.ways.of(request.kind)(request)
            except Refused as error:
                if _TOO_LONG.search(error.said):
                    raise UserError(
                        f"The server says that a prompt of {request.prompt_tokens} tokens with its answer is too long for "
                        f"it: {error.said} Give a smaller --max-prompt-len. The answers so far are kept."
                    ) from None
                faults += 1
                if faults >= MAX_FAULTS:
                    raise DarumeruError(
                        f"The server at {endpoint.served.base_url} refused {faults} requests, at last with status "
                        f"{error.status}: {error.said} The answers so far are kept."
                    ) from None
                return Answer(request.id, error=f"the server refused '{request.id}' ({error.status}): {error.said}")

        return ask
