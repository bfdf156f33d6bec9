"""A pool of workers that looks like an engine to whoever has requests answered.

The driver is this process: it plans, hands out windows of requests, takes answers as they come, and alone writes journals. A
worker that dies or hangs is replaced, and what it had not answered is handed out again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Request
from darumeru.settings import WorkerSettings
from darumeru.workers.cluster import Cluster, DiedError, connected
from darumeru.workers.messages import Loaded, Refused, Started, bare
from darumeru.workers.state import AskedModel, Seat, check_versions
from darumeru.workers.work import DEATHS, share_of, summary_of
from darumeru.workers.worker import versions

if TYPE_CHECKING:
    from darumeru.engines import Engine
    from darumeru.inference import OpenedModel

log = logging.getLogger(__name__)

_LOOK = 0.2
"""Seconds between two looks at what is to be done."""

_COUNT = 10.0
"""Seconds between two looks at how many workers the cluster holds."""


class Pool:
    """Workers that share the models that are asked among them.

    A thread of its own talks to the workers; `load` and the engines that it returns may be used from several threads.

    Args:
        cluster: where workers run.
        stall: seconds without a word from a worker that has work, after which it is ended.
    """

    def __init__(self, cluster: Cluster, stall: float) -> None:
        self.planning = threading.Lock()
        """To be held while prompts are built: transformers and lm-eval load their parts on first use, in one thread at a time."""
        self._cluster, self._stall = cluster, stall
        self._lock = threading.RLock()
        self._seats: list[Seat] = []
        self._models: dict[str, AskedModel] = {}
        self._coming = 0
        self._died = self._unstarted = self._numbered = 0
        self._wanted, self._counted = cluster.wanted(), time.monotonic()
        self._versions = versions()
        self._closing = threading.Event()
        self._fault: DarumeruError | None = None
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
        self._thread.start()

    # -- for those who ask --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers there are to be."""
        return self._wanted

    def expect(self, models: int) -> None:
        """Say how many models are asked, or about to be, at the same time.

        While there are others, a model is loaded by its share of the workers only.
        """
        with self._lock:
            self._coming = models

    def load(self, opened: OpenedModel, max_len: int) -> Engine:
        """Have a worker load a model, and return the engine that asks all workers which load it; see `OpenedModel.load`.

        Raises:
            UserError: the engine cannot be used by workers, or a node does not see the model.
            DarumeruError: the model cannot be loaded, or workers died of it.
        """
        from darumeru.workers.engine import PoolEngine, to_load

        with self._lock:
            self._numbered += 1
            key = f"{self._numbered} {opened.model.name}"
        model = AskedModel(to_load(key, opened, max_len, self._cluster.gpus))
        with self._lock:
            if self._fault:
                raise self._fault
            self._models[key] = model
        model.loaded.wait()
        if model.fault:
            self.forget(key)
            raise model.fault
        return PoolEngine(self, model, opened)

    def forget(self, key: str) -> None:
        """Ask a model no more; the workers that hold it keep it until they are given another."""
        with self._lock:
            self._models.pop(key, None)

    def ask(self, model: AskedModel, requests: Sequence[Request]) -> None:
        """Hand out requests to the workers that hold a model."""
        with self._lock:
            model.asked = True
            model.work.ask(requests)

    def summary(self) -> str:
        """Return what the workers do, in a few words."""
        with self._lock:
            states = Counter(seat.state for seat in self._seats)
            return summary_of({s: states[s] for s in ("answer", "load", "start", "wait")}, self._died)

    def close(self) -> None:
        """End all workers; whoever still waits for an answer gets an error."""
        self._closing.set()
        self._thread.join()

    # -- the driver's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._staff()
                self._hand_out()
                for seat in self._ready():
                    self._hear(seat)
                self._end_silent()
            self._fail(DarumeruError("The workers were ended. The answers so far are kept."))
        except DarumeruError as error:
            self._fail(error)
        except Exception as error:  # of Ray, whose cluster may be gone
            log.debug("workers", exc_info=True)
            self._fail(DarumeruError(f"The workers failed ({type(error).__name__}: {str(error).strip()[:300]})."))
        finally:
            for seat in self._seats:
                seat.remote.end()

    def _fail(self, fault: DarumeruError) -> None:
        with self._lock:
            self._fault = fault
            for model in self._models.values():
                model.fail(fault)

    def _staff(self) -> None:
        """Start the workers that are missing; they wait for their places where the cluster has none."""
        if time.monotonic() - self._counted > _COUNT:
            self._wanted, self._counted = self._cluster.wanted(), time.monotonic()
        with self._lock:
            self._seats += [Seat(self._cluster.start()) for _ in range(self._wanted - len(self._seats))]

    def _ready(self) -> list[Seat]:
        """Return the workers from which something has come; waits a moment for it."""
        ready = self._cluster.ready([seat.remote for seat in self._seats], _LOOK)
        return [seat for seat in self._seats if seat.remote in ready]

    def _hear(self, seat: Seat) -> None:
        """Take the next message of a worker, or learn that it died."""
        try:
            message = seat.remote.hear()
        except DiedError as error:
            self._dead(seat, str(error))
            return
        seat.heard = time.monotonic()
        with self._lock:
            model = self._models.get(seat.model)
            if isinstance(message, Started):
                self._unstarted = 0
                check_versions(self._versions, message)
                seat.started = message
            elif isinstance(message, Loaded):
                seat.loading = False
                if model and seat.started:
                    model.welcome(message, seat.started.node)
            elif isinstance(message, Refused):
                seat.loading, seat.out = False, {}
                if model:
                    kind = UserError if message.exit_code == UserError.exit_code else DarumeruError
                    model.fail(kind(message.error))
                seat.model = ""
            else:
                known = [
                    a for a in message.answers if message.key == seat.model and seat.out.pop(a.id, None) is not None
                ]
                if model and known:
                    model.deaths = 0
                    model.inbox.put(known)

    def _dead(self, seat: Seat, reason: str) -> None:
        """Hand out again what a worker had not answered; another one is started in its place."""
        seat.remote.end()
        with self._lock:
            self._seats.remove(seat)
            if seat.started is None:
                self._unstarted += 1
                if self._unstarted >= DEATHS:
                    raise DarumeruError(f"No worker could be started, {DEATHS} were tried: {reason}")
                return
            self._died += 1
            log.warning("A worker on node '%s' died: %s", seat.started.node, reason)
            model = self._models.get(seat.model)
            if model is None:
                return
            blamed = reason if self._cluster.alive(seat.started.node) else ""
            if faults := model.work.lost(list(seat.out.values()), blamed):
                model.inbox.put(faults)
            if blamed and (seat.loading or seat.out):
                model.died(seat.loading, reason)

    def _end_silent(self) -> None:
        now = time.monotonic()
        for seat in [s for s in self._seats if s.loading or s.out]:
            if now - seat.heard > self._stall:
                self._dead(seat, f"nothing was heard from it for {self._stall:.0f} s, so it was ended.")

    # -- who gets what ------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        with self._lock:
            share = share_of(self._wanted, max(self._coming, len(self._models)))
            holders = Counter(seat.model for seat in self._seats)
            for seat in self._seats:
                if seat.started and not seat.loading:
                    self._feed(seat, holders, share)

    def _feed(self, seat: Seat, holders: Counter[str], share: int) -> None:
        """Give a worker its next window, or another model."""
        model = self._models.get(seat.model)
        if model is not None and model.fault:
            model = None
        held, other = holders[seat.model], self._next(seat.model, holders, share)
        # The last worker that holds a model stays until it is asked no more; the others go where there is work.
        if other is not None and (model is None or held > share or (held > 1 and model.asked and not len(model.work))):
            if not seat.out:
                holders.subtract([seat.model])
                holders.update([other.to_load.key])
                seat.model, seat.loading, seat.heard = other.to_load.key, True, time.monotonic()
                seat.remote.give(other.to_load)
        elif model is not None and len(model.work) and self._has_room(seat, model):
            if not seat.out:
                seat.heard = time.monotonic()
            window = model.work.window(held)
            seat.out |= {r.id: r for r in window}
            seat.window = len(window)
            seat.remote.give([bare(r) for r in window])

    @staticmethod
    def _has_room(seat: Seat, model: AskedModel) -> bool:
        """Return whether a worker is to get its next window: when all before its last one is answered, so that one lies ready.

        Nothing is given beside requests that may have ended a worker.
        """
        if not seat.out:
            return True
        if len(seat.out) > seat.window:  # first, as it is asked of every worker after every message
            return False
        return not model.work.suspects and not any(map(model.work.suspected, seat.out.values()))

    def _next(self, held: str, holders: Counter[str], share: int) -> AskedModel | None:
        """Return the model that a worker is to load next: one that has work and few workers, the first of those that came."""
        wanting = [
            (holders[key], number, model)
            for number, (key, model) in enumerate(self._models.items())
            if key != held
            and not model.fault
            and holders[key] < share
            and (len(model.work) or not holders[key] or not model.first)
        ]
        return min(wanting, default=(0, 0, None), key=lambda found: found[:2])[2]


@contextmanager
def open_pool(settings: WorkerSettings, gpus: bool = True) -> Iterator[Pool]:
    """Give a pool of workers; they end with the block, or with this process.

    Args:
        settings: how many workers, and where.
        gpus: whether they compute on GPUs where there are any.

    Raises:
        UserError: see `connected`.
    """
    with connected(settings, gpus) as cluster:
        pool = Pool(cluster, settings.stall)
        try:
            yield pool
        finally:
            pool.close()
