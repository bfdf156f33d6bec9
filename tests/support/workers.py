"""Workers in threads of this process: the pool's other side without Ray, whose deaths a test decides."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from darumeru.engines import EngineOptions
from darumeru.requests import Request
from darumeru.workers import Pool
from darumeru.workers.cluster import DiedError
from darumeru.workers.messages import Message
from darumeru.workers.worker import Worker

LOADING = threading.Lock()
"""transformers loads one model at a time in a process."""


class Careful(Worker):
    """A worker that loads real models beside others in one process."""

    def load(self, model: Any) -> Any:
        with LOADING:
            return super().load(model)


class Thread:
    """A worker in a thread; `end` makes it fall silent for good, as the end of a process does."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.said: queue.SimpleQueue[Message | DiedError] = queue.SimpleQueue()
        self.over = False
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        try:
            for message in self.worker.work():
                if self.over:
                    return
                self.said.put(message)
        except Exception as error:
            self.said.put(DiedError(f"{type(error).__name__}: {error}"))

    def give(self, what: Any) -> None:
        self.worker.give(what)

    def hear(self) -> Message:
        message = self.said.get()
        if isinstance(message, DiedError):
            raise message
        return message

    def end(self) -> None:
        self.over = True


class Threads:
    """A cluster of threads.

    Args:
        count: of workers.
        worker: makes the one of a number.
    """

    gpus = 0

    def __init__(self, count: int, worker: Callable[[int], Worker] = lambda number: Careful()) -> None:
        self.count, self.worker = count, worker
        self.started: list[Thread] = []

    def wanted(self) -> int:
        return self.count

    def alive(self, node: str) -> bool:
        return True

    def start(self) -> Thread:
        self.started.append(Thread(self.worker(len(self.started))))
        return self.started[-1]

    def ready(self, remotes: Sequence[Thread], timeout: float) -> list[Thread]:
        deadline = time.monotonic() + timeout
        while not (found := [r for r in remotes if not r.said.empty()]) and time.monotonic() < deadline:
            time.sleep(0.002)
        return found


@contextmanager
def pool_of(cluster: Threads, stall: float = 600.0) -> Iterator[Pool]:
    pool = Pool(cluster, stall)  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        pool.close()


def opened(name: str = "model", *, exact: bool = False, needs_server: bool = False) -> Any:
    """A model that was looked through, as far as a pool looks at it."""
    return SimpleNamespace(
        engine=SimpleNamespace(name="stub", needs_server=needs_server),
        model=SimpleNamespace(
            name=name, path=Path("/models") / name, tokenizer_path=None, eos_ids=lambda _: frozenset()
        ),
        tokenizer=lambda text, add_special_tokens: {"input_ids": [ord(c) for c in text]},
        options=lambda max_len: EngineOptions(exact=exact),
    )


class Counting(Careful):
    """A worker that notes which models it loads and what it is given; `before` is called with each window."""

    def __init__(self, before: Callable[[Sequence[Request]], None] = lambda window: None) -> None:
        super().__init__()
        self.before = before
        self.loads: list[str] = []
        self.given: list[str] = []

    def _loaded(self, model: Any) -> Any:
        self.loads.append(model.path.name)
        return super()._loaded(model)

    def _answered(self, engine: Any, requests: Sequence[Request]) -> Any:
        self.given += [r.id for r in requests]
        self.before(requests)
        return super()._answered(engine, requests)
