"""The process that evaluates one checkpoint for `darumeru watch`: `python -m darumeru.watch.child`.

It reads one line of JSON, {"settings": …, "output": …, "against": null or the folder of the best run}, and writes lines of JSON:
{"done": …, "total": …} as it goes, and at last {"run": path} or {"error": …, "busy": …}. It ends when its standard input does: a
watch that was killed leaves nobody behind on the GPU.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO


def main() -> int:
    """Evaluate what standard input names."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_parent, daemon=True).start()
    # Whatever libraries print goes to stderr: stdout is for our lines alone.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    from darumeru.evaluation import Settings
    from darumeru.watch.evaluated import evaluated

    def progress(done: int, total: int) -> None:
        _tell(out, {"done": done, "total": total})

    settings = Settings(**request["settings"])
    message = evaluated(settings, Path(request["output"]), request.get("against"), progress)
    _tell(out, message)
    return 0 if "run" in message else 1


def _watch_parent() -> None:
    # Not sys.stdin.read(): it would hold the lock of the reader, and a worker that vLLM forks from this process closes its
    # copy of sys.stdin first of all, waiting for that lock for ever.
    while os.read(0, 1):
        pass
    # The journal has every answer up to here. Workers are of our group, unless somebody began this process by hand.
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _tell(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    # Without the libraries' locks being taken down in order: vLLM's take seconds.
    code = main()
    sys.stderr.flush()
    os._exit(code)
