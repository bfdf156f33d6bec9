"""The engine that a pool of workers is to whoever has requests answered."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from darumeru.engines.base import Engine
from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request
from darumeru.workers.messages import ToLoad
from darumeru.workers.probe import probe_of

if TYPE_CHECKING:
    from darumeru.inference import OpenedModel
    from darumeru.workers.pool import Pool
    from darumeru.workers.state import AskedModel


class PoolEngine(Engine):
    """A model that the workers of a pool hold."""

    name = "workers"
    interleaves = True

    def __init__(self, pool: Pool, model: AskedModel, opened: OpenedModel) -> None:
        super().__init__()
        self._pool, self._model = pool, model
        self.tokenizer = opened.tokenizer
        self.eos_ids = model.to_load.eos_ids

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`: what the first worker says, and how many there are."""
        facts = self._model.first.facts if self._model.first else {}
        return {**facts, "workers": self._pool.size}

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """See `Engine.answers`.

        Raises:
            DarumeruError: the engine of a worker failed, or workers died one after another.
        """
        waiting = {r.id for r in requests if r.id not in done}
        self._pool.ask(self._model, [r for r in requests if r.id in waiting])
        while waiting:
            found = self._model.inbox.get()
            if isinstance(found, DarumeruError):
                raise found
            waiting -= {a.id for a in found}
            yield found

    def close(self) -> None:
        """See `Engine.close`; workers keep the model until they get another."""
        self._pool.forget(self._model.to_load.key)


def to_load(key: str, opened: OpenedModel, max_len: int, gpus: int) -> ToLoad:
    """Return what a worker must know to load a model.

    Raises:
        UserError: workers cannot compute it so.
    """
    options = opened.options(max_len)
    if opened.engine.needs_server:
        raise UserError(f"--engine {opened.engine.name} asks a server, which needs no workers: leave out --workers.")
    if options.exact:
        raise UserError("--exact needs the batches of one engine: leave out --workers.")
    if gpus > 1:
        options = replace(options, model_args=opened.engine.spread(gpus) | options.model_args)
    return ToLoad(
        key,
        opened.engine.name,
        opened.model.path.resolve(),
        opened.model.tokenizer_path and opened.model.tokenizer_path.resolve(),
        opened.model.eos_ids(opened.tokenizer),
        options,
        probe_of(opened.tokenizer),
    )
