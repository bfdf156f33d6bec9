"""Packages that only some commands need: each belongs to an extra, and what is missing is said in one sentence."""

from __future__ import annotations

from importlib.util import find_spec

from darumeru.errors import UserError

_DISTRIBUTIONS = {"vl_convert": "vl-convert-python"}
"""Modules whose package is called otherwise."""


def need(*modules: str, extra: str) -> None:
    """Raise an error if a package of an extra is missing; nothing is imported.

    Call it before the work begins, so that hours of computing do not end in an import error.

    Args:
        modules: top-level modules, such as `altair`.
        extra: the extra of `darumeru` that installs them, such as `leaderboard`.

    Raises:
        UserError: some are not installed; names them and the command that installs them.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if find_spec(name) is None]
    if missing:
        raise UserError(f"This needs {' and '.join(missing)}. Install the extra: pip install 'darumeru[{extra}]'.")
