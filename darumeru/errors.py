"""Errors that a command reports in one sentence, and its exit code; names close to one that does not exist."""

from __future__ import annotations

import contextlib
import difflib
import errno
import signal
from collections.abc import Iterable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of the errors that mean that a disk is full."""

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_UNUSABLE = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR})


class DarumeruError(Exception):
    """Something failed although it was asked for correctly; the command ends with exit code 1."""

    exit_code = 1


class UserError(DarumeruError):
    """An input that cannot be used as it is; the message says what can be done. Exit code 2."""

    exit_code = 2


class NotFiniteError(DarumeruError):
    """A loss or gradient that is no finite number."""


class BusyError(UserError):
    """Another process holds the lock of what was asked for."""


def end_at_once() -> None:
    """Have a further Ctrl-C end this process, which is ending, at once; it would interrupt that with a traceback."""
    with contextlib.suppress(ValueError):  # not the main thread, which gets no signals
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def of_system(error: OSError) -> DarumeruError | None:
    """Return what a disk, or rights on it, did, in a sentence that says what to do; None where it is about something else."""
    place = f" '{error.filename}'" if error.filename else ""
    if error.errno in FULL:
        where = f" for{place}" if place else ""
        return DarumeruError(
            f"No space is left on the disk{where}. Free some and start the same command again: what was computed is kept."
        )
    if error.errno == errno.EIO:
        where = f" of{place}" if place else ""
        return DarumeruError(
            f"The disk{where} could not be read or written ({error.strerror}). See to the disk and start the same command again: "
            "what was computed is kept."
        )
    if error.errno in _REFUSED:
        return UserError(f"No right to write or read{place} ({error.strerror}). Name a folder that you may write to.")
    if error.errno in _UNUSABLE:
        return UserError(f"The path{place} cannot be used ({error.strerror}). Name another one.")
    return None


def one_line(error: BaseException) -> str:
    """Return what an error says in a line, or its kind where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def unknown(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist: it states the name, the nearest one and all that do."""
    names = sorted(set(allowed))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{value}'.{hint} Available: {', '.join(names) or 'none'}.")
