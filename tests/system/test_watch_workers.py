"""A checkpoint's process that forks workers, as vLLM does: it neither hangs on them nor leaves them behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from darumeru.evaluation import settings_of
from darumeru.watch import process

CHILD = """
import multiprocessing, os, pathlib, sys, time

def begin(settings):
    here = pathlib.Path(os.environ["WORKER"])
    def work(seconds):
        here.write_text(str(os.getpid()))
        time.sleep(seconds)
    worker = multiprocessing.get_context("fork").Process(target=work, args=({seconds},), daemon=True)
    worker.start()
    {then}

if sys.argv[0] == "-m":
    import types
    import darumeru.errors
    quick = types.ModuleType("darumeru.evaluation")  # the real one takes seconds to be imported
    quick.prepare, quick.Settings = begin, lambda **given: given
    quick.__getattr__ = lambda name: None
    sys.modules["darumeru.evaluation"] = quick
"""


@pytest.fixture
def forking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Have the processes of checkpoints fork a worker instead of evaluating; the file that will hold the worker's id."""

    def install(seconds: float, then: str) -> Path:
        (tmp_path / "sitecustomize.py").write_text(CHILD.format(seconds=seconds, then=then))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setenv("WORKER", str(tmp_path / "worker"))
        monkeypatch.setattr(process, "_LOOK", 0.2)
        return tmp_path / "worker"

    return install


def evaluate(folder: Path, **more: Any) -> dict[str, Any]:
    settings = settings_of(model=str(folder), suite="darumeru-train", engine="hf", data="mini")
    return process.evaluate_apart(settings, folder / "runs", {}, lambda share, silent: None, **more)


def alive(worker: Path) -> bool:
    """Whether the worker runs; one that has ended and waits to be reaped does not."""
    stat = Path(f"/proc/{worker.read_text()}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for four minutes"
        time.sleep(0.05)


def test_a_forked_worker_runs(forking: Callable[..., Path], tmp_path: Path) -> None:
    """A forked worker closes its copy of standard input first: whoever reads that in this process must hold no lock of it."""
    forking(0, "worker.join(20); raise darumeru.errors.DarumeruError(f'worker {worker.exitcode}')")
    assert evaluate(tmp_path) == {"error": "worker 0", "busy": False}


def test_a_worker_that_is_left_holds_nothing_up(forking: Callable[..., Path], tmp_path: Path) -> None:
    """It has its copy of standard output too, whose end therefore says nothing."""
    worker = forking(300, "time.sleep(1); os._exit(3)")
    assert evaluate(tmp_path)["error"].startswith("its process ended with code 3")
    wait_for(lambda: not alive(worker))


def test_a_process_that_hangs_is_ended(forking: Callable[..., Path], tmp_path: Path) -> None:
    worker = forking(300, "time.sleep(300)")
    assert evaluate(tmp_path, stall=15.0)["error"] == "its process made no progress for 15 s and was ended"
    wait_for(lambda: not alive(worker))


def test_a_watch_that_is_killed_leaves_no_worker(forking: Callable[..., Path], tmp_path: Path) -> None:
    worker = forking(300, "time.sleep(300)")
    root = Path(__file__).parents[2]
    call = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'tests')!r}]\nfrom system import test_watch_workers as t\n"
    call += f"t.evaluate(t.Path({str(tmp_path)!r}))"
    watch = subprocess.Popen([sys.executable, "-c", call], env={**os.environ})
    wait_for(worker.exists)
    wait_for(lambda: bool(worker.read_text()))
    assert alive(worker)
    watch.send_signal(signal.SIGKILL)
    watch.wait()
    wait_for(lambda: not alive(worker))
