"""Trainings in several processes that are started once and run them one after another; see `run_together`."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


def run_together(calls: Sequence[dict[str, Any]], file: Path) -> None:
    """Let two processes make the same calls: {"pretrain": its arguments} or {"calibrate": its arguments}.

    Args:
        calls: what is called.
        file: where they are written for the processes.
    """
    with _started(calls, file) as process:
        _, told = process.communicate(timeout=500)
        assert process.returncode == 0, told[-3000:]


def kill_together(calls: Sequence[dict[str, Any]], file: Path, reached: Callable[[], bool]) -> None:
    """Let two processes make calls until something is `reached`; then kill both."""
    with _started(calls, file) as process:
        deadline = time.monotonic() + 500
        while not reached():
            assert process.poll() is None, process.communicate()[1][-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def _started(calls: Sequence[dict[str, Any]], file: Path) -> Iterator[subprocess.Popen[str]]:
    file.write_text(json.dumps(calls, default=str))
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "support.together", str(file)]
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # The launcher gives each process a session of its own, so there is no group to kill.
        processes = psutil.Process(process.pid).children() if process.poll() is None else []
        for one in (*processes, process):
            with suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


def _main() -> None:
    from lep.calibration.train import calibrate
    from lep.pretraining.job import pretrain
    from lep.pretraining.settings import settings_of

    for call in json.loads(Path(sys.argv[1]).read_text()):
        for name, arguments in call.items():
            if name == "calibrate":
                calibrate(**arguments)
            else:
                pretrain(**arguments | {"settings": settings_of(**arguments["settings"])})


if __name__ == "__main__":
    _main()
