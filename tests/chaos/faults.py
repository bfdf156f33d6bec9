"""What goes wrong: each function disturbs one start of a scenario's command.

It leaves the machine as it found it, so that the next start is undisturbed. What the disturbed start may end with is told by the
`Ended` that it returns.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import shim

if TYPE_CHECKING:
    from .trial import Trial


@dataclass(frozen=True)
class Ended:
    """How a disturbed start ended.

    Attributes:
        how: in words, with what was drawn.
        must_succeed: the fault is none for a user: the command had to do its work.
        damaged: files were changed behind its back: the next start may refuse them in a sentence, or compute anew.
    """

    how: str
    must_succeed: bool = False
    damaged: bool = False


Fault = Callable[["Trial"], Ended]


def killed(trial: Trial) -> Ended:
    """SIGKILL at some moment."""
    return _signalled(trial, signal.SIGKILL)


def terminated(trial: Trial) -> Ended:
    """SIGTERM at some moment."""
    return _signalled(trial, signal.SIGTERM)


def interrupted_twice(trial: Trial) -> Ended:
    """Ctrl-C, and again while it ends."""
    process, gap = trial.start(), trial.draw.uniform(0.0, 0.3)
    runs, when = trial.at_some_moment(process)
    if runs:
        process.send(signal.SIGINT)
        time.sleep(gap)
        process.send(signal.SIGINT)
    trial.ended(process, signalled=True)
    return Ended(f"{when} and {gap:.2f} s")


def paused(trial: Trial) -> Ended:
    """SIGSTOP, and SIGCONT a second later."""
    process = trial.start()
    runs, when = trial.at_some_moment(process)
    if runs:
        process.send(signal.SIGSTOP)
        time.sleep(1.0)
        process.send(signal.SIGCONT)
    trial.ended(process)
    return Ended(when, must_succeed=True)


def killed_in_a_call(trial: Trial) -> Ended:
    """SIGKILL within a call that changes files; a write is half done then."""
    return _in_a_call(trial, "kill")


def disk_full(trial: Trial) -> Ended:
    """ENOSPC from a call on."""
    return _in_a_call(trial, "enospc")


def disk_full_at(call: int) -> Fault:
    """Return ENOSPC from this call on."""

    def disk_full(trial: Trial) -> Ended:
        trial.ended(trial.start(trial.counted.environment("enospc", call)))
        return Ended(f"call {call} of {trial.calls}")

    return disk_full


def disk_error(trial: Trial) -> Ended:
    """EIO in one call."""
    return _in_a_call(trial, "eio")


def clock_jumps(trial: Trial) -> Ended:
    """The time of day jumps by a day, forwards or backwards."""
    at, jump = trial.draw.randint(1, trial.calls), trial.draw.choice((-86400, 86400))
    trial.ended(trial.start(trial.counted.environment("clock", at, jump)))
    return Ended(f"by {jump} s from call {at} of {trial.calls} on", must_succeed=True)


def small_disk(trial: Trial) -> Ended:
    """A real file system (tmpfs) that is too small, and is made larger then."""
    pages = max(1, trial.size // 4096)
    size = 4096 * trial.draw.randint(1, pages)
    with trial.mounted(size):
        trial.ended(trial.start())
        return Ended(f"of {size} bytes for {trial.size}")


def read_only(trial: Trial) -> Ended:
    """The file system of the output folder can only be read, from the start or from some moment on."""
    with trial.mounted(1 << 30) as remount:
        if trial.draw.random() < 0.5:
            remount("ro")
            process, when = trial.start(), "from the start"
        else:
            process = trial.start()
            runs, when = trial.at_some_moment(process)
            while runs and not remount("ro"):  # as long as a file is open for writing it cannot be
                runs = process.run_for(0.0)
        trial.ended(process)
        remount("rw")
        return Ended(when)


def out_of_memory(trial: Trial) -> Ended:
    """The command and what it starts may have so much memory of their own; the kernel kills it if it takes more."""
    size = int(2 ** trial.draw.uniform(22, 29))
    group = _group(f"chaos-{os.getpid()}")
    group.mkdir()
    try:
        limit = next(name for name in ("memory.max", "memory.limit_in_bytes") if (group / name).exists())
        (group / limit).write_text(str(size))
        process = trial.start()
        with suppress(OSError):  # done already
            (group / "cgroup.procs").write_text(str(process.pid))
        trial.ended(process, signalled=True)
        return Ended(f"with {size >> 20} MB")
    finally:
        for _ in range(100):
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def cut_file(trial: Trial) -> Ended:
    """SIGKILL, and a file that it left is cut off."""
    return _damaged(trial, lambda data: data[: trial.draw.randrange(len(data))], "cut off")


def flipped_bit(trial: Trial) -> Ended:
    """SIGKILL, and one bit of a file that it left is another."""

    def flip(data: bytes) -> bytes:
        at = trial.draw.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << trial.draw.randrange(8)]) + data[at + 1 :]

    return _damaged(trial, flip, "has another bit")


def two_at_once(trial: Trial) -> Ended:
    """The command is started twice, one shortly after the other."""
    gap = trial.draw.choice((0.0, trial.draw.uniform(0.0, trial.seconds)))
    first = trial.start()
    first.run_for(gap)
    second = trial.start()
    codes = [trial.ended(first), trial.ended(second)]
    if 0 not in codes:
        trial.wrong.append(f"of two at once none succeeded: {codes}, {first.text[-300:]!r}, {second.text[-300:]!r}")
    return Ended(f"{gap:.2f} s apart, exit codes {codes}")


def long_name(trial: Trial) -> Ended:
    """The output folder's name has 255 bytes, spaces and characters of several scripts; then SIGKILL."""
    name = "ы 中 '\"$ é‮ "
    trial.rename(name + "ж" * ((255 - len(name.encode())) // 2))
    return killed_in_a_call(trial)


def linked_folder(trial: Trial) -> Ended:
    """The output folder is a symbolic link to one elsewhere; then SIGKILL."""
    real = trial.place / "elsewhere"
    real.mkdir()
    trial.output.symlink_to(real.name)
    try:
        return killed_in_a_call(trial)
    finally:
        if not trial.output.is_symlink() and trial.output.exists():
            trial.wrong.append("the symbolic link to the output folder was replaced")


def linked_file(trial: Trial) -> Ended:
    """SIGKILL, and a file that it left is now a symbolic link to a copy outside, which nobody may change."""
    killed_in_a_call(trial)
    if not (files := [file for file in trial.needed() if file.name != ".lock"]):
        return Ended("nothing was there yet")
    file, outside = trial.draw.choice(files), trial.outside / "precious"
    shutil.copy(file, outside)
    kept = outside.read_bytes()
    file.unlink()
    file.symlink_to(outside)

    def check() -> None:
        if not outside.is_file() or outside.read_bytes() != kept:
            trial.wrong.append(
                f"{file.relative_to(trial.output)} was a link out of the folder, and its target was changed"
            )

    trial.later.append(check)
    return Ended(str(file.relative_to(trial.output)), damaged=True)


FAULTS: Sequence[Fault] = (
    killed, killed_in_a_call, terminated, interrupted_twice, paused, disk_full, disk_error, small_disk, read_only, clock_jumps,
    out_of_memory, cut_file, flipped_bit, two_at_once, long_name, linked_folder, linked_file,
)  # fmt: skip
WRITING = (
    killed_in_a_call,
    disk_full,
    disk_error,
    clock_jumps,
    cut_file,
    flipped_bit,
    long_name,
    linked_folder,
    linked_file,
)
"""Those that need the preloaded library."""
MOUNTING = (small_disk, read_only)
"""Those that need to mount a file system."""
LIMITING = (out_of_memory,)
"""Those that need to limit memory."""


def available(wanted: Sequence[Fault] = FAULTS) -> tuple[list[Fault], dict[str, str]]:
    """Return the faults that can be made here, and why others cannot."""
    no_shim, no_mount = shim.reason(), _no_mount()
    why = {
        f.__name__: r
        for faults, r in ((WRITING, no_shim), (MOUNTING, no_mount), (LIMITING, _no_limit()))
        if r
        for f in faults
    }
    return [f for f in wanted if f.__name__ not in why], {
        f.__name__: why[f.__name__] for f in wanted if f.__name__ in why
    }


def _no_mount() -> str | None:
    if os.geteuid():
        return "mounting needs root"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "this machine lets nobody mount"


def _group(name: str) -> Path:
    """Return the place of a group of processes whose memory can be limited."""
    root = Path("/sys/fs/cgroup")
    return (root / "memory" if (root / "memory").is_dir() else root) / name


def _no_limit() -> str | None:
    group = _group(f"chaos-{os.getpid()}-try")
    try:
        group.mkdir()
        there = any((group / name).exists() for name in ("memory.max", "memory.limit_in_bytes"))
        group.rmdir()
    except OSError as error:
        return f"no group of processes can be made ({error.strerror})"
    return None if there else "memory of a group of processes cannot be limited"


def _signalled(trial: Trial, number: signal.Signals) -> Ended:
    process = trial.start()
    runs, when = trial.at_some_moment(process)
    if runs:
        process.send(number)
    trial.ended(process, signalled=True)
    return Ended(when)


def _in_a_call(trial: Trial, how: shim.How) -> Ended:
    at = trial.draw.randint(1, trial.calls)
    trial.ended(trial.start(trial.counted.environment(how, at)), signalled=how == "kill")
    return Ended(f"call {at} of {trial.calls}")


def _damaged(trial: Trial, change: Callable[[bytes], bytes], what: str) -> Ended:
    killed_in_a_call(trial)
    files = [file for file in trial.needed() if file.stat().st_size]
    if not files:
        return Ended("nothing was there yet")
    file = trial.draw.choice(files)
    data = change(file.read_bytes())
    file.unlink()  # a hard link's other names keep what they have
    file.write_bytes(data)
    return Ended(f"{file.relative_to(trial.output)} {what}", damaged=True)


@contextmanager
def mounted(place: Path, size: int) -> Iterator[Callable[[str], bool]]:
    """Mount a file system of `size` bytes at a folder; what is in it at the end is in the folder afterwards.

    Gives what mounts it anew, "ro" or "rw", and returns whether that could be done.
    """

    def remount(how: str) -> bool:
        asked = ["mount", "-o", f"remount,{how}", str(place)]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0

    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "chaos", place], check=True)
    aside = place.with_name(f"{place.name}.aside")
    try:
        yield remount
        shutil.copytree(place, aside, symlinks=True)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
        if aside.exists():
            shutil.copytree(aside, place, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(aside)
