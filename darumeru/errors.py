"""Errors that a command reports in one sentence, and its exit code; names close to one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DarumeruError(Exception):
    """Something failed although it was asked for correctly; the command ends with exit code 1."""

    exit_code = 1


class UserError(DarumeruError):
    """What was asked for cannot be done as asked; the message says what can. Exit code 2."""

    exit_code = 2


class NotFiniteError(DarumeruError):
    """A loss or gradient that is no finite number."""


class BusyError(UserError):
    """Another process holds the lock of what was asked for."""


def unknown(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """Return the error for a name that does not exist: it states the name, the nearest one and all that do."""
    names = sorted(set(allowed))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{value}'.{hint} Available: {', '.join(names) or 'none'}.")
