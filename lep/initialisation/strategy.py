"""An initialisation strategy: one function in one file of `lep.initialisation.strategies`, or in another installed package.

    @strategy("every new token begins as the old token 0")
    def first(change: Change) -> NewRows:
        old_token_0 = scipy.sparse.csr_array(…)
        return NewRows(with_rows(change.mean, change.new_tokens, old_token_0))

The file's name is the strategy's; another package names its own under the entry point group `lep.initialisation`. The
keyword parameters of the function are the strategy's settings, among those of `initialise`: one that has `corpus` reads
the corpus, one that has `donor` a donor model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from darumeru import plugins

if TYPE_CHECKING:
    from lep.initialisation.rows import NewRows

PACKAGE, GROUP = "lep.initialisation.strategies", "lep.initialisation"


@dataclass(frozen=True)
class Strategy:
    """An initialisation strategy: it chooses the rows of new tokens.

    Attributes:
        choose: takes `lep.initialisation.rows.Change` and the strategy's settings as keywords.
        help: one line about it.
    """

    choose: Callable[..., NewRows]
    help: str

    @property
    def settings(self) -> tuple[str, ...]:
        """The names of its settings."""
        parameters = inspect.signature(self.choose).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def strategy(help: str) -> Callable[[Callable[..., NewRows]], Strategy]:
    """Make a function an initialisation strategy; see `Strategy`."""
    return lambda choose: Strategy(choose, help)


def names() -> list[str]:
    """Return the names of all strategies; nothing is imported."""
    return plugins.names(PACKAGE, GROUP)


def find(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises:
        UserError: there is none.
    """
    return plugins.find(PACKAGE, GROUP, name, Strategy, what="strategy")
