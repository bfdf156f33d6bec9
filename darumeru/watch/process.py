"""One checkpoint, evaluated in a process of its own (`darumeru.watch.child`), which may have a GPU of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from darumeru.errors import UserError
from darumeru.evaluation import Settings


def device_of(device: str) -> tuple[str, dict[str, str]]:
    """Return the device of the runs, and the environment that gives their processes that GPU only.

    Raises:
        UserError: no such device.
    """
    if device in ("auto", "cuda"):
        return device, {}
    if device == "cpu":
        return device, {"CUDA_VISIBLE_DEVICES": ""}
    if match := re.fullmatch(r"cuda:(\d{1,3})", device):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        index, ours = int(match[1]), [d for d in seen.split(",") if d]
        if ours and index >= len(ours):
            raise UserError(f"--device '{device}': CUDA_VISIBLE_DEVICES names {len(ours)} GPUs, counted from 0.")
        return "cuda", {"CUDA_VISIBLE_DEVICES": ours[index] if ours else str(index)}
    raise UserError(f"--device '{device}' is not possible: auto, cpu, cuda, or cuda:N.")


def evaluate_apart(
    settings: Settings,
    output: Path,
    environment: Mapping[str, str],
    progress: Callable[[float], None],
    against: str | None = None,
) -> dict[str, Any]:
    """Evaluate what settings name in a new process.

    Args:
        settings: the run.
        output: folder of the run records.
        environment: variables of the process beside our own.
        progress: is told the share that is done.
        against: folder of the best run so far, if a checkpoint that is worse need not be evaluated to the end.

    Returns:
        The process's last message: `run` names the record's folder, or `error` says why there is none.
    """
    request = json.dumps({"settings": settings.model_dump(mode="json"), "output": str(output), "against": against})
    message: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with _process(environment, errors) as process:
            assert process.stdin is not None and process.stdout is not None  # noqa: S101 — they are pipes
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
            for line in process.stdout:
                with suppress(ValueError):
                    message = json.loads(line)
                if message.get("total"):
                    progress(message["done"] / message["total"])
        if "run" in message or "error" in message:
            return message
        return {"error": _last_words(process.returncode, errors)}


@contextmanager
def _process(environment: Mapping[str, str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process of a checkpoint; it is ended if we are."""
    import darumeru

    root = str(Path(darumeru.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "darumeru.watch.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        text=True, encoding="utf-8", env={**os.environ, **environment, "PYTHONPATH": path, "TQDM_DISABLE": "1"},
    )  # fmt: skip
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _last_words(code: int, errors: IO[str]) -> str:
    """Return why a process ended that said nothing itself."""
    errors.seek(0)
    lines = [line.strip() for line in errors.read().splitlines() if line.strip()]
    with suppress(ValueError):
        if code < 0:
            name = signal.Signals(-code).name
            killed = " (out of memory?)" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{killed}" + (f"; last line: {lines[-1]}" if lines else "")
    return f"its process ended with code {code}" + (f"; last line: {lines[-1]}" if lines else "")
