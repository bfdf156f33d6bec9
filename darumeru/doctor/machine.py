"""Memory, disks, variables, and the hub."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from darumeru import hub
from darumeru.doctor.findings import Finding, gigabytes

LITTLE = 10_000_000_000
"""Bytes of free disk below which a model of a few billion parameters may not find room."""

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HF_",
    "TRANSFORMERS_",
    "VLLM_",
    "PYTORCH_",
    "NCCL_",
    "OMP_NUM_THREADS",
    "DARUMERU_",
)
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")


def findings() -> list[Finding]:
    """Look at the machine."""
    return [_memory(), *_disks(), *_variables(), _hub()]


def free_memory() -> tuple[int, int]:
    """Bytes of memory that are free for a new process, and all; 0 where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, whole = (int(lines[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        try:
            return 0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return 0, 0
    try:  # a container's limit
        root = Path("/sys/fs/cgroup")
        limit, used = (int((root / name).read_text()) for name in ("memory.max", "memory.current"))
        return min(free, limit - used), min(whole, limit)
    except (OSError, ValueError):
        return free, whole


def _memory() -> Finding:
    free, whole = free_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{gigabytes(free)} of {gigabytes(whole)} free" if free else f"{gigabytes(whole)}"
    return Finding("machine", "memory", f"{text}, {cores} cores")


def _disks() -> list[Finding]:
    places = {"this folder": Path.cwd()}
    try:
        from huggingface_hub import constants

        places["the hub's cache"] = Path(constants.HF_HUB_CACHE)
    except Exception:  # said of the package itself
        places["home"] = Path.home()
    found = []
    for name, place in places.items():
        there = next((p for p in (place, *place.parents) if p.is_dir()), Path("/"))
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            found.append(Finding("machine", f"disk of {name}", f"unknown ({error})", "note"))
            continue
        advice = f"There is little room on the disk of {name}." if free < LITTLE else ""
        found.append(
            Finding("machine", f"disk of {name}", f"{gigabytes(free)} free", "note" if advice else "ok", advice)
        )
    return found


def _variables() -> list[Finding]:
    chosen = sorted(name for name in os.environ if name.startswith(_VARIABLES))
    shown = (f"{n}={'…' if any(s in n for s in _SECRET) else _without_user(os.environ[n])}" for n in chosen)
    text = ", ".join(shown)
    return [Finding("machine", "variables", text)] if text else []


def _without_user(text: str) -> str:
    """Return a text in whose addresses name and password are not shown: the table goes into reports of bugs."""
    return re.sub(r"://[^/\s]*@", "://…@", text)


def _hub() -> Finding:
    try:
        fault = hub.unreachable()
    except Exception as error:  # a broken client is no reason to say nothing else
        fault = f"{type(error).__name__}: {error}"
    if fault is None:
        return Finding("machine", "hub", "answers")
    advice = "Without the hub, models are folders, and data are --data mini or a bundle's folder (docs/offline.md)."
    return Finding("machine", "hub", _without_user(fault), "note", advice)
