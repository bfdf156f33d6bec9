"""Commands that are killed, forked from a process that has imported what takes longest.

Each is a process of its own, with nothing in it but imports; on a CPU only, since CUDA does not outlive a fork. Tests that use
them belong to the xdist group "forked", so that one process imports for all.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["transformers.models.llama.modeling_llama", "darumeru.evaluation", "darumeru.engines.hf"])


def fork(
    function: Callable[..., object], *arguments: Any, said: Path, environment: Mapping[str, str] | None = None
) -> BaseProcess:
    """Start a process.

    Args:
        function: of a module, so that the process finds it.
        arguments: what it is called with.
        said: file to which the process appends what it says, both streams together.
        environment: variables of the process beside our own.

    Returns:
        The process; its exit code is 0 if the function returned, or that of a command.
    """
    process = FORKS.Process(target=_call, args=(function, arguments, said, {**os.environ, **(environment or {})}))
    process.start()
    return process


def _call(function: Callable[..., object], arguments: tuple[Any, ...], said: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with said.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    function(*arguments)


def darumeru(*arguments: object) -> None:
    """Be the command `darumeru`."""
    from darumeru.cli import main

    sys.argv = ["darumeru", *map(str, arguments)]
    main()
