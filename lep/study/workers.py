"""Where cells are run: in processes of this machine, each with a GPU of its own if there are any, or on nodes of a Ray cluster.

Each cell is a process (`lep.study.child`), wherever it runs. Nodes of a cluster share the folders of the study, the texts and
the models.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal, Protocol

from darumeru.errors import UserError
from darumeru.settings import WorkerSettings

if TYPE_CHECKING:
    from darumeru.workers.cluster import Cluster

MARK = "study.json"
"""The file that makes a folder a study's own; a node that sees it sees the folder."""

_RETRIES = 2
"""Times that a cell is started again on a cluster whose node was lost; it goes on from its last checkpoint."""


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Protocol):
    """What runs cells beside one another.

    Attributes:
        count: cells at a time.
        cores: of all of them.
        here: whether they use the memory of this machine.
    """

    count: int
    cores: int
    here: bool

    def run(self, request: Mapping[str, Any], log: Path) -> str:
        """Run a cell and return how its process ended, "" if it was well.

        Args:
            request: see `lep.study.child`.
            log: receives what it prints.
        """

    def stop(self) -> None:
        """End all that run."""


@contextmanager
def open_workers(workers: int | Literal["auto"], ray: str | None, gpus: bool) -> Iterator[Workers]:
    """Give so many workers.

    Args:
        workers: cells at a time; `auto`: as many as there are GPUs, or one.
        ray: address of a Ray cluster whose nodes run them; None for this machine.
        gpus: whether they train on GPUs where there are any.

    Raises:
        UserError: less than one; Ray is not installed, no cluster answers, or it has not so many devices.
    """
    if workers != "auto" and workers < 1:
        raise UserError(f"--workers {workers}: at least one cell is run at a time.")
    if ray is None:
        yield _Here(workers, _gpus() if gpus else [])
        return
    from darumeru.workers.cluster import connected

    with connected(WorkerSettings(workers=workers, ray=ray), gpus) as cluster:
        yield _OnCluster(cluster)


class _Here:
    """Processes of this machine."""

    here = True

    def __init__(self, workers: int | Literal["auto"], gpus: Sequence[str]) -> None:
        self.count = (len(gpus) or 1) if workers == "auto" else workers
        self.cores = cores()
        self._slots: SimpleQueue[str | None] = SimpleQueue()
        for n in range(self.count):
            self._slots.put(gpus[n % len(gpus)] if gpus else None)
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, request: Mapping[str, Any], log: Path) -> str:
        gpu = self._slots.get()
        try:
            return _child(
                request, log, max(self.cores // self.count, 1), {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu},
                self._processes.add,
            )  # fmt: skip
        finally:
            self._slots.put(gpu)

    def stop(self) -> None:
        for process in [*self._processes]:
            process.kill()  # its checkpoints are kept


class _OnCluster:
    """Tasks of Ray, each with its share of cores and a GPU where there are any; they end with the connection."""

    here = False

    def __init__(self, cluster: Cluster) -> None:
        import ray

        self.count = cluster.wanted()
        self.cores, self._each = cluster.cores * self.count, cluster.cores
        self._task = ray.remote(_on_node).options(
            num_cpus=cluster.cores, num_gpus=min(cluster.gpus, 1), max_retries=_RETRIES
        )

    def run(self, request: Mapping[str, Any], log: Path) -> str:
        import ray

        from darumeru.workers.cluster import last_words
        from darumeru.workers.worker import versions

        try:
            return str(ray.get(self._task.remote(dict(request), str(log), self._each, versions())))
        except ray.exceptions.RayError as error:
            return last_words(error)

    def stop(self) -> None:
        import ray

        ray.shutdown()


def _on_node(request: dict[str, Any], log: str, threads: int, versions: dict[str, str]) -> str:
    """Run a cell on the node that this is."""
    import socket

    from darumeru.workers.worker import versions as found

    node = socket.gethostname()
    for path in (Path(request["output"]) / MARK, Path(request["grid"])):
        if not path.is_file():
            return f"node '{node}' has no {path}: give folders that all nodes see, such as a network file system"
    if other := [name for name, version in versions.items() if found().get(name) != version]:
        return f"node '{node}' has another version of {', '.join(other)}: install the same versions on all nodes"
    return _child(request, Path(log), threads, {}, lambda _: None)


def _child(
    request: Mapping[str, Any],
    log: Path,
    threads: int,
    environment: Mapping[str, str],
    started: Callable[[subprocess.Popen[bytes]], None],
) -> str:
    """Run the process of a cell and return how it ended; it ends when this process does."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lep.study.child"], stdin=subprocess.PIPE, stdout=file, stderr=file,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **environment}, start_new_session=True,
        )  # fmt: skip
        started(process)
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        with process.stdin:  # which stays open
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            code = process.wait()
    return f"its process ended with {'signal' if code < 0 else 'code'} {abs(code)}; see {log.name}" if code else ""


def _gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(n) for n in range(torch.cuda.device_count())]
