"""Trainings in two processes that are started once and run them one after another; see `run_together`."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from support.forked import fork


def run_together(calls: Sequence[dict[str, Any]], said: Path) -> None:
    """Let two processes make the same calls: {"pretrain": its arguments} or {"calibrate": its arguments}.

    Args:
        calls: what is called.
        said: file for what they say.
    """
    with _started(calls, said) as processes:
        deadline = time.monotonic() + 500
        while any(process.exitcode is None for process in processes):
            # A process waits in vain for one that failed.
            assert all(process.exitcode in (None, 0) for process in processes), said.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert [process.exitcode for process in processes] == [0, 0], said.read_text()[-3000:]


def kill_together(calls: Sequence[dict[str, Any]], said: Path, reached: Callable[[], bool]) -> None:
    """Let two processes make calls until something is `reached`; then kill both."""
    with _started(calls, said) as processes:
        deadline = time.monotonic() + 500
        while not reached():
            assert all(process.exitcode is None for process in processes), said.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def _started(calls: Sequence[dict[str, Any]], said: Path) -> Iterator[list[BaseProcess]]:
    """Two processes as `torchrun` starts them: each knows its rank and where the first listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        fork(_make, calls, said=said, environment={**group, "RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def _make(calls: Sequence[dict[str, Any]]) -> None:
    import torch

    from lep.calibration.train import calibrate
    from lep.pretraining.job import pretrain
    from lep.pretraining.settings import settings_of

    torch.set_num_threads(1)
    for call in calls:
        for name, arguments in call.items():
            if name == "calibrate":
                calibrate(**arguments)
            else:
                pretrain(**arguments | {"settings": settings_of(**arguments["settings"])})
