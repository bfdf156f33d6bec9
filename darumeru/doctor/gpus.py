"""NVIDIA GPUs and their driver, as `nvidia-smi` lists them. Python's own library only: `scripts/install.py` asks too."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

DRIVERS = {11: 450, 12: 525, 13: 580}
"""The oldest driver on Linux that runs programs of each major version of CUDA (NVIDIA, CUDA compatibility: minor versions)."""

_FIELDS = ("name", "driver_version", "memory.total", "memory.free")
_MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """A GPU of this machine; sizes in bytes, 0 where the driver does not tell."""

    name: str
    driver: str
    memory: int
    free: int


def nvidia_gpus() -> list[Gpu]:
    """Return the GPUs of this machine, also those that `CUDA_VISIBLE_DEVICES` hides; none where `nvidia-smi` does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [Gpu(r[0], r[1], _bytes(r[2]), _bytes(r[3])) for r in rows if len(r) == len(_FIELDS)]


def driver_fault(driver: str, cuda: str) -> str | None:
    """Return one sentence if a driver is too old for programs of a version of CUDA.

    >>> driver_fault("580.65.06", "13.0") is driver_fault("", "13.0") is driver_fault("550.54", "12.8") is None
    True
    """
    have, want = re.match(r"\d+", driver), DRIVERS.get(int(cuda.partition(".")[0] or 0))
    if have is None or want is None or int(have[0]) >= want:
        return None
    return (
        f"The NVIDIA driver {driver} is too old for CUDA {cuda}, for which PyTorch and vLLM are built: install driver {want} or "
        "newer, or builds of PyTorch and vLLM for an older CUDA."
    )


def _bytes(mebibytes: str) -> int:
    return int(mebibytes) * _MIB if mebibytes.strip().isdigit() else 0
