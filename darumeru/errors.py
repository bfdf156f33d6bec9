"""The two ways in which a command can end badly, and how to name what was meant instead."""

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
    """Another process is doing just that."""


def unknown(what: str, value: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that does not exist: states it, the nearest one and all that do."""
    names = sorted(set(allowed))
    near = difflib.get_close_matches(value, names, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"Unknown {what} '{value}'.{hint} Available: {', '.join(names) or 'none'}.")
