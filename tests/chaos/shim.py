"""The preloaded library (`shim.c`) that counts what a command writes and lets one of its calls go wrong."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

How = Literal["kill", "eio", "enospc", "clock"]

_PRELOAD = "LD_PRELOAD"
_SOURCE = Path(__file__).with_name("shim.c")


def reason() -> str | None:
    """Return why calls cannot be disturbed here; None where they can."""
    if sys.platform != "linux":
        return "only Linux preloads libraries so"
    return None if shutil.which("cc") else "there is no compiler (cc)"


def preload() -> None:
    """Begin this process anew with the library in it, which its forks then have too; return where it is there already."""
    if _SOURCE.stem in os.environ.get(_PRELOAD, ""):
        return
    library = Path(tempfile.mkdtemp(prefix="chaos.")) / f"{_SOURCE.stem}.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
    ours = os.pathsep.join(filter(None, (str(library), os.environ.get(_PRELOAD))))
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _PRELOAD: ours})  # noqa: S606


def remove() -> None:
    """Delete the library, at the end of the process that `preload` began."""
    library = Path(os.environ.pop(_PRELOAD, "").split(os.pathsep)[0])
    if library.stem == _SOURCE.stem:
        shutil.rmtree(library.parent, ignore_errors=True)


class Calls:
    """The calls of a command that change files below a folder, counted over all of its processes.

    Args:
        folder: the folder.
        counter: a file for the number, outside it.
    """

    def __init__(self, folder: Path, counter: Path) -> None:
        self.folder, self._counter = folder, counter
        counter.write_bytes(bytes(8))

    def environment(self, how: How | None = None, at: int = 0, jump: int = 0) -> dict[str, str]:
        """Return the environment of a command whose call number `at` (from 1) goes wrong."""
        told = {"CHAOS_FOLDER": str(self.folder), "CHAOS_COUNTER": str(self._counter)}
        return told if how is None else {**told, "CHAOS_HOW": how, "CHAOS_AT": str(at), "CHAOS_JUMP": str(jump)}

    @property
    def number(self) -> int:
        """How many there were."""
        with self._counter.open("rb") as file, mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ) as shared:
            return int(struct.unpack("q", shared[:8])[0])
