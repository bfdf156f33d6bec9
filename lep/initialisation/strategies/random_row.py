"""The row of a random old token."""

from __future__ import annotations

import numpy as np
import scipy.sparse

from lep.initialisation.rows import Change, NewRows, with_rows
from lep.initialisation.strategy import strategy


@strategy("the row of a random old token")
def random_row(change: Change, *, seed: int = 0) -> NewRows:
    """An old token's row for each new token; special tokens are not drawn.

    Args:
        change: the vocabularies.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    ordinary = sorted(index for index in change.old.strings if not change.old.is_special(index))
    wanted = change.new_tokens
    chosen = rng.choice(np.array(ordinary, dtype=np.int64), size=len(wanted))
    rows = scipy.sparse.csr_array(
        (np.ones(len(wanted)), (np.arange(len(wanted)), chosen)), shape=(len(wanted), change.old_rows)
    )
    return NewRows(with_rows(change.mean, wanted, rows))
