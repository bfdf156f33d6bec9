"""A propagation method: one function in one file of `lep.propagation.methods`, or in another installed package.

    @method("halfway between swap and overlap", candidates=({},))
    def halfway(matrices: Matrices) -> Fit | None:
        fit = least_squares(matrices.shared_rows(), matrices.dim)
        return replace(fit, map=(fit.map + np.eye(matrices.dim)) / 2)

The file's name is the method's; another package names its own under the entry point group `lep.propagation`. The
keyword parameters of the function are the method's settings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from darumeru import plugins
from darumeru.errors import unknown

if TYPE_CHECKING:
    import torch

PACKAGE, GROUP = "lep.propagation.methods", "lep.propagation"
AUTO = "auto"
"""In place of a method's name: the candidate with the fewest bits per byte on a held-out text."""


class Change(Protocol):
    """A change of trained rows into the instruct model's: a `lep.propagation.linalg.Fit`, or a `lep.propagation.shift.Shift`."""

    def apply(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        """Return rows `start` and following of the adapted matrix, changed (b x d, of the same type)."""
        ...

    def summary(self) -> dict[str, object]:
        """Return figures for the manifest."""
        ...


@dataclass(frozen=True)
class Method:
    """A propagation method: it finds how the rows of one matrix change.

    Attributes:
        fit: takes `lep.propagation.matrices.Matrices` and the method's settings as keywords; returns the change, or None
            for the identity.
        help: one line about it.
        candidates: the settings that `auto` tries it with; none where it is no candidate.
    """

    fit: Callable[..., Change | None]
    help: str
    candidates: tuple[Mapping[str, float], ...] = ()

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of its settings."""
        parameters = inspect.signature(self.fit).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def method(
    help: str, *, candidates: Sequence[Mapping[str, float]] = ()
) -> Callable[[Callable[..., Change | None]], Method]:
    """Make a function a propagation method; see `Method`."""
    return lambda fit: Method(fit, help, tuple(candidates))


def names() -> list[str]:
    """Return the names of all methods; nothing is imported."""
    return plugins.names(PACKAGE, GROUP)


def choices() -> list[str]:
    """Return what may be asked for: the names of all methods, and `auto`."""
    return [*names(), AUTO]


def find(name: str) -> Method:
    """Return the method of a name.

    Raises:
        UserError: there is none.
    """
    if name not in names():
        raise unknown("method", name, choices())
    return plugins.find(PACKAGE, GROUP, name, Method, what="method")
