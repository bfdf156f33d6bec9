"""The process that runs one cell: `python -m lep.study.child`.

It reads one line of JSON, {"grid": …, "changes": …, "output": …, "cell": …}, and ends when its standard input does: a study that
was killed leaves nobody behind.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path


def main() -> int:
    """Run the cell that standard input names."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_parent, daemon=True).start()
    from lep.pipeline.stage import Talk
    from lep.study.grid import read_grid
    from lep.study.run import run_cell

    grid = read_grid(request["grid"], request["changes"])
    cell = next(cell for cell in grid.cells if cell.id == request["cell"])

    def say(what: str) -> None:
        sys.stderr.write(f"{what}\n")
        sys.stderr.flush()

    done = run_cell(grid, cell, Path(request["output"]), Talk(lambda _: nullcontext(None), say), say)
    return 0 if done else 1


def _watch_parent() -> None:
    # Not sys.stdin.read(), which would hold the lock of the reader.
    while os.read(0, 1):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
