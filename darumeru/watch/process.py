"""One checkpoint, evaluated in a process of its own (`darumeru.watch.child`), which may have a GPU of its own."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from darumeru.doctor.gpus import Gpu
from darumeru.errors import UserError
from darumeru.evaluation import Settings
from darumeru.settings import STALL

_FREE = 0.9
"""A GPU with a smaller share of its memory free is in use: a context alone takes less."""

_LOOK = 5.0
"""Seconds between two looks at whether a silent process is still there."""


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


def taken_gpu(device: str, environment: Mapping[str, str], gpus: Sequence[Gpu]) -> str | None:
    """Return one sentence where the evaluations' GPU holds something already, such as the training; None where it does not.

    Args:
        device: of the runs, as `device_of` returns it.
        environment: of their processes, as `device_of` returns it.
        gpus: of this machine.
    """
    seen = environment.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", "0"))
    first = seen.partition(",")[0].strip() or "0"
    if device == "cpu" or not first.isdigit() or int(first) >= len(gpus):
        return None
    gpu = gpus[int(first)]
    if gpu.memory == 0 or gpu.free >= _FREE * gpu.memory:
        return None
    return (
        f"Of GPU {first} ({gpu.name}) {gpu.free / 1e9:.1f} of {gpu.memory / 1e9:.1f} GB are free; the rest is taken, by the "
        "training perhaps. An evaluation takes what is free while it runs. A GPU of its own: --device cuda:N; less: --model-args "
        "gpu_memory_utilization=0.2 (vllm) or batch_tokens=4096 (hf)."
    )


def evaluate_apart(
    settings: Settings,
    output: Path,
    environment: Mapping[str, str],
    progress: Callable[[float, float], None],
    stall: float = STALL,
    against: str | None = None,
) -> dict[str, Any]:
    """Evaluate what settings name in a new process.

    Args:
        settings: the run.
        output: folder of the run records.
        environment: variables of the process beside our own.
        progress: is told the share that is done, and for how many seconds nothing has been heard.
        stall: seconds without a word from the process after which it is ended.
        against: folder of the best run so far, if a checkpoint that is worse need not be evaluated to the end.

    Returns:
        The process's last message: `run` names the record's folder, or `error` says why there is none.
    """
    request = json.dumps({"settings": settings.model_dump(mode="json"), "output": str(output), "against": against})
    share = 0.0
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with _process(environment, errors) as process:
            assert process.stdin is not None  # noqa: S101 — it is a pipe
            with suppress(BrokenPipeError):
                process.stdin.write(request + "\n")
                process.stdin.flush()
            for message, silent in _messages(process):
                if "run" in message or "error" in message:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(10)  # its own way out is the best one
                    return message
                if message.get("total"):
                    share = message["done"] / message["total"]
                if silent > stall:
                    return {"error": f"its process made no progress for {stall:.0f} s and was ended"}
                progress(share, silent)
        return {"error": _last_words(process.returncode, errors)}


def _messages(process: subprocess.Popen[str]) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield a process's messages as they come until it has ended, every few seconds an empty one; and the silence in seconds.

    The end of the process counts, not the end of its output: workers that it has forked hold that open too.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stdout is not None  # noqa: S101 — it is a pipe
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    heard = time.monotonic()
    while True:
        ended = process.poll() is not None
        try:
            # What an ended process wrote may still be on its way through the thread.
            message = json.loads(lines.get(timeout=_LOOK / 10 if ended else _LOOK))
        except queue.Empty:
            if ended:
                return
            message = {}
        except ValueError:
            continue
        if message:
            heard = time.monotonic()
        yield message, time.monotonic() - heard


def _read(stream: IO[str], lines: queue.SimpleQueue[str]) -> None:
    with suppress(OSError, ValueError):  # closed meanwhile
        for line in stream:
            lines.put(line)


@contextmanager
def _process(environment: Mapping[str, str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process of a checkpoint; it and the workers that it has forked are ended if we are, and when we have its answer."""
    import darumeru

    root = str(Path(darumeru.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "darumeru.watch.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
        text=True, encoding="utf-8", process_group=0,
        env={**os.environ, **environment, "PYTHONPATH": path, "TQDM_DISABLE": "1"},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        _signal(process, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal to all of a process's group that are left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


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
