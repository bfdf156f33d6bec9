"""The Ray cluster on which workers run: a private one on this machine, or one that is there already."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from darumeru.errors import DarumeruError, UserError
from darumeru.extras import need
from darumeru.requests import Request
from darumeru.settings import WorkerSettings
from darumeru.workers.messages import Message, ToLoad
from darumeru.workers.worker import Worker

STORE_BYTES = 100 << 20
"""Ray's memory for objects on this machine: what passes between driver and workers is small."""

_STARTS = 3
"""Times that a cluster is started: on a busy machine its parts may take longer to find each other than Ray waits."""

_ANSWERS = 10.0
"""Seconds within which a cluster's address takes a connection."""

CORES = 8
"""Of a worker on a machine without GPUs, where `auto` decides how many there are."""


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has."""

    cores: int
    gpus: int


class DiedError(Exception):
    """A worker's process ended; the text says why."""


@dataclass(frozen=True, eq=False)
class Remote:
    """A worker in its process, as the driver sees it."""

    actor: Any
    stream: Any
    """Its messages (`Worker.work`), a generator of Ray."""

    def give(self, what: ToLoad | Sequence[Request]) -> None:
        """See `Worker.give`."""
        self.actor.give.remote(what)

    def hear(self) -> Message:
        """Return its next message, which has come (`Cluster.ready`).

        Raises:
            DiedError: there is none, because its process ended.
        """
        import ray

        try:
            message: Message = ray.get(next(self.stream))
        except (ray.exceptions.RayError, StopIteration) as error:
            raise DiedError(last_words(error)) from None
        return message

    def end(self) -> None:
        """End its process, whatever it is doing."""
        import ray

        ray.kill(self.actor, no_restart=True)


class Cluster:
    """A connected Ray cluster and the share of it that each worker gets.

    Args:
        settings: how many workers, and on which devices.
        gpus: whether workers compute on GPUs where there are any.
        local: whether the cluster is our own.
        worker: what runs in each process.

    Raises:
        UserError: there are not so many devices.
    """

    def __init__(self, settings: WorkerSettings, gpus: bool, local: bool, worker: type[Worker] = Worker) -> None:
        self._settings, self._worker = settings, worker
        nodes = self.nodes()
        self.gpus = settings.devices_per_worker if gpus and any(n.gpus for n in nodes) else 0
        if gpus and not self.gpus and settings.devices_per_worker > 1:
            raise UserError(f"--devices-per-worker {settings.devices_per_worker}: there is no GPU.")
        count, room = self.wanted(), self._room(nodes)
        if self.gpus and not room:
            most = max(n.gpus for n in nodes)
            raise UserError(f"--devices-per-worker {self.gpus}: no node has so many GPUs; the most are {most}.")
        if self.gpus and count > room:
            raise UserError(
                f"--workers {count} with {self.gpus} GPU{'s' if self.gpus > 1 else ''} each: the GPUs of "
                f"{'this machine' if local else 'the cluster'} ({', '.join(str(n.gpus) for n in nodes)}) hold {room}."
            )
        if not local and count > sum(n.cores for n in nodes):
            raise UserError(
                f"--workers {count}: the cluster has {sum(n.cores for n in nodes)} cores, and each worker needs one."
            )
        self.cores = _cores_of(nodes, count)

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        import ray

        found = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        return [Node(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in found]

    def alive(self, node: str) -> bool:
        """Return whether a node is alive, by its host name."""
        import ray

        return any(n["Alive"] and n["NodeManagerHostname"] == node for n in ray.nodes())

    def wanted(self) -> int:
        """Return how many workers there should be now: with `auto` more when nodes join."""
        if self._settings.workers != "auto":
            return self._settings.workers
        return max(1, self._room(self.nodes()))

    def _room(self, nodes: Sequence[Node]) -> int:
        if self.gpus:
            return sum(n.gpus // self.gpus for n in nodes)
        return sum(max(1, n.cores // CORES) for n in nodes if n.cores)

    def start(self) -> Remote:
        """Start a worker; it waits for a place where the cluster has none."""
        import ray

        # No retries by Ray: the driver hands out again exactly what was not answered, and the actor ends with the driver.
        options = {"num_cpus": self.cores, "num_gpus": self.gpus, "max_concurrency": 2, "max_restarts": 0}
        actor = ray.remote(self._worker).options(**options).remote()
        return Remote(actor, actor.work.options(num_returns="streaming").remote())

    def ready(self, remotes: Sequence[Remote], timeout: float) -> list[Remote]:
        """Return the workers from which something has come, at the latest after so many seconds."""
        import ray

        streams = [remote.stream for remote in remotes]
        found, rest = ray.wait(streams, timeout=timeout, fetch_local=False)
        if found and rest:
            found += ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0]
        return [remotes[streams.index(stream)] for stream in found]


def _cores_of(nodes: Sequence[Node], count: int) -> int:
    """Return the most cores for each of so many workers of which each lies on one node."""
    most = max(n.cores for n in nodes)
    return next((c for c in range(most, 1, -1) if sum(n.cores // c for n in nodes) >= count), 1)


@contextmanager
def connected(settings: WorkerSettings, gpus: bool, worker: type[Worker] = Worker) -> Iterator[Cluster]:
    """Connect to the cluster that the settings name, or start one on this machine that ends with this process.

    Args:
        settings: how many workers, on which cluster and devices.
        gpus: whether workers compute on GPUs where there are any.
        worker: what runs in each process.

    Raises:
        UserError: Ray is not installed, no cluster answers at the address, or it has not so many devices.
    """
    need("ray", extra="ray")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # Ray sets it when it is imported
    if settings.ray is None:
        _start(settings.workers if isinstance(settings.workers, int) else 1)
    else:
        _join(settings.ray)
    try:
        yield Cluster(settings, gpus, local=settings.ray is None, worker=worker)
    finally:
        ray.shutdown()


_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # It prints to standard output what we tell ourselves, that a worker died; a program may read that.
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    # Workers compute in the place of this process, and with its priority.
    "RAY_worker_niceness": "0",
}
"""Ray's settings, where the user has no others."""

_QUIET: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}


def _start(workers: int) -> None:
    """Start a cluster on this machine.

    Raises:
        DarumeruError: Ray does not start.
    """
    import ray

    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = max(workers, here)
    for left in reversed(range(_STARTS)):
        try:
            ray.init(
                address="local", num_cpus=cores, object_store_memory=STORE_BYTES, include_dashboard=False, **_QUIET
            )
            return
        except Exception as error:  # Ray has no type for it
            ray.shutdown()
            if not left:
                raise DarumeruError(f"Ray does not start on this machine: {_first_line(error)}") from error


def _join(address: str) -> None:
    """Connect to a cluster that runs.

    Raises:
        UserError: none answers.
    """
    import ray

    if "://" in address:
        raise UserError(f"--ray '{address}' is not possible: give HOST:PORT of the head node, or auto on a node of it.")
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():  # Ray itself tries for a minute
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERS).close()
        ray.init(address=address, **_QUIET)
    except (RuntimeError, ValueError, OverflowError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"No Ray cluster answers at '{address}' ({reason}). Start one with 'ray start --head' (where it asks for "
            "a token, set RAY_AUTH_MODE=token here), or leave out --ray for workers on this machine."
        ) from None


def last_words(error: Exception) -> str:
    """Return why a worker ended, in a line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return f"{type(cause).__name__}: {_first_line(cause)}"
    found = re.search(r"Worker exit detail: (.*?)(?: Some common causes|$)", str(error), re.M)
    return f"{found[1]} It was killed, crashed, or ran out of memory." if found else _first_line(error)[:300]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
