"""Trainings in several processes that are started once and run them one after another; see `run_together`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def start_together(calls: Sequence[dict[str, Any]], file: Path, **environment: str) -> subprocess.Popen[str]:
    """Start two processes that each make the same calls: {"pretrain": its arguments} or {"calibrate": its arguments}."""
    file.write_text(json.dumps(calls, default=str))
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "support.together", str(file)]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", **environment},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_together(calls: Sequence[dict[str, Any]], file: Path, **environment: str) -> None:
    """See `start_together`; returns when all is done."""
    process = start_together(calls, file, **environment)
    try:
        _, told = process.communicate(timeout=500)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, told[-3000:]


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
