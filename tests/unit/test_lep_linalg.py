"""Least squares by Gram sums and by blocked QR, against LAPACK's gelsd on the whole matrices."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from lep.propagation.linalg import accumulate, least_squares, ridge


def blocks_of(a: Any, b: Any, size: int = 97) -> Any:
    def blocks() -> Iterator[tuple[Any, Any]]:
        for start in range(0, len(a), size):
            yield a[start : start + size], b[start : start + size]

    return blocks


def conditioned(rows: int, dim: int, condition: float, seed: int = 0, rank: int | None = None) -> Any:
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.standard_normal((rows, dim)))[0]
    right = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    values = np.geomspace(1, 1 / condition, dim)
    if rank is not None:
        values[rank:] = 0
    return (left * values) @ right


def gelsd(a: Any, b: Any) -> tuple[Any, int]:
    solved = torch.linalg.lstsq(torch.from_numpy(a), torch.from_numpy(b), driver="gelsd")
    return solved.solution.numpy(), int(solved.rank)


@pytest.mark.parametrize(
    ("condition", "solver"),
    [(1e1, "cholesky"), (1e3, "cholesky"), (1e5, "cholesky, refined"), (1e6, "cholesky, refined"), (1e9, "qr + gelsd")],
)
def test_agrees_with_gelsd(condition: float, solver: str) -> None:
    a = conditioned(700, 24, condition)
    b = np.random.default_rng(1).standard_normal((700, 24)) * 1e-3 + a @ np.random.default_rng(2).normal(size=(24, 24))
    fit = least_squares(blocks_of(a, b), 24)
    wanted, rank = gelsd(a, b)
    # Two backward-stable solvers may differ by condition x eps times what the noise puts into the weak directions.
    allowed = 1e-8 if condition <= 1e6 else 1e-5
    assert np.linalg.norm(fit.map - wanted) <= allowed * np.linalg.norm(wanted)
    assert fit.solver == solver
    assert fit.rank == rank == 24
    assert fit.condition == pytest.approx(condition, rel=0.02)
    assert fit.residual == pytest.approx(np.linalg.norm(a @ wanted - b) / np.linalg.norm(b), rel=1e-3)


@pytest.mark.parametrize(("rows", "rank"), [(700, 17), (700, 1), (15, None)])
def test_missing_rank_leaves_unseen_directions_as_they_are(rows: int, rank: int | None) -> None:
    dim = 24
    rng = np.random.default_rng(3)
    a = conditioned(rows, dim, 1e2, rank=rank) if rows > dim else rng.standard_normal((rows, dim))
    b = rng.standard_normal((rows, dim))
    fit = least_squares(blocks_of(a, b, size=10), dim)
    change, found = gelsd(a, b - a)
    wanted = np.eye(dim) + change
    # It fits as well as the minimum-norm map, and a row that A says nothing of keeps its length.
    assert np.allclose(a @ fit.map, a @ gelsd(a, b)[0])
    unseen = np.linalg.svd(a)[2][found:]
    assert np.allclose(np.linalg.norm(unseen @ fit.map, axis=1), 1)
    assert np.linalg.norm(fit.map - wanted) <= 1e-8 * np.linalg.norm(wanted)
    assert fit.rank == found == (rank or rows)
    assert fit.solver == "qr + gelsd"


def test_a_planted_map_is_found() -> None:
    rng = np.random.default_rng(4)
    a, planted = rng.standard_normal((3000, 40)), rng.standard_normal((40, 40))
    fit = least_squares(blocks_of(a, a @ planted), 40)
    assert np.abs(fit.map - planted).max() < 1e-11
    assert fit.residual < 1e-6


def test_ridge_runs_from_least_squares_to_the_identity() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((500, 12)), rng.standard_normal((500, 12))
    sums = accumulate(blocks_of(a, b), 12)
    free = least_squares(blocks_of(a, b), 12).map
    assert np.abs(ridge(sums, 1e-12).map - free).max() < 1e-9
    assert np.abs(ridge(sums, 1e12).map - np.eye(12)).max() < 1e-9
    distances = [np.linalg.norm(ridge(sums, strength).map - np.eye(12)) for strength in (0.01, 0.1, 1, 10)]
    assert distances == sorted(distances, reverse=True)
    strength = 0.3 * np.trace(a.T @ a) / 12
    wanted = np.eye(12) + np.linalg.solve(a.T @ a + strength * np.eye(12), a.T @ (b - a))
    fit = ridge(sums, 0.3)
    assert np.abs(fit.map - wanted).max() < 1e-12
    assert fit.residual == pytest.approx(np.linalg.norm(a @ wanted - b) / np.linalg.norm(b), rel=1e-9)


def test_wide_matrices_fill_the_whole_gram_matrix() -> None:
    # More columns than one panel of the symmetric product.
    rng = np.random.default_rng(6)
    a = rng.standard_normal((1500, 1100))
    sums = accumulate(blocks_of(a, a), 1100)
    assert np.abs(sums.gram.numpy() - a.T @ a).max() < 1e-10
