"""Draws from a normal distribution with the moments of the old rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from darumeru.weights import StoredTensor
from lep.initialisation.rows import Change, NewRows
from lep.initialisation.strategy import strategy
from lep.model.checkpoint import mean_row, read_blocks

if TYPE_CHECKING:
    import torch


@strategy("a draw from a normal with the old rows' mean and covariance")
def random(change: Change, *, seed: int = 0, diagonal: bool = False) -> NewRows:
    """A draw for each new token.

    Args:
        change: the vocabularies.
        seed: of the draws.
        diagonal: the old rows' variances in place of their covariance.
    """
    return NewRows(change.mean, draw=lambda tensor: normal(tensor, change.old.size, seed, diagonal))


def normal(tensor: StoredTensor, tokens: int, seed: int, diagonal: bool) -> Callable[[int], torch.Tensor]:
    """Return a function that draws n rows from a normal with the mean and covariance (or variances) of the first `tokens`."""
    import torch

    dim = tensor.shape[1]
    mean = torch.from_numpy(mean_row(tensor, tokens))
    generator = torch.Generator().manual_seed(seed)
    spread = torch.zeros((dim,) if diagonal else (dim, dim), dtype=torch.float64)
    for start, block in read_blocks(tensor):
        centred = block[: max(0, tokens - start)].to(torch.float64) - mean
        spread += (centred**2).sum(dim=0) if diagonal else centred.T @ centred
    spread /= tokens
    if diagonal:
        deviation = torch.sqrt(spread)
        return lambda n: mean + deviation * torch.randn(n, dim, generator=generator, dtype=torch.float64)
    # Fewer rows than columns leave the covariance singular; a trace of the mean variance makes it definite.
    spread += 1e-9 * torch.trace(spread) / dim * torch.eye(dim, dtype=torch.float64)
    factor = torch.linalg.cholesky(spread)
    return lambda n: mean + torch.randn(n, dim, generator=generator, dtype=torch.float64) @ factor.T
