"""Least squares for very tall matrices, a block of rows at a time, in float64.

``X = argmin ‖A X − B‖_F`` for A, B of n x d with n far above d. Only ``G = AᵀA`` and ``R = AᵀB`` (d x d) are kept, so
that memory does not grow with n; ``X = G⁻¹R`` by Cholesky. Squaring A squares its condition number, so:

* condition up to 1e4: as it is (errors stay below about 1e-8);
* up to 1e7: refined by further passes over the rows, ``X += G⁻¹ Aᵀ(B − A X)`` (Björck, "Stability analysis of the
  method of seminormal equations", Linear Algebra Appl. 88/89, 1987);
* above, or where rank is missing: a blocked QR of A (Demmel et al., "Communication-optimal QR", SIAM J. Sci. Comput.
  34, 2012), then LAPACK's `gelsd` on the small triangle, which gives the rank. Of the maps that fit alike the one nearest to
  the identity is taken, ``X = Id + A⁺(B − A)``: directions that no row of A has stay as they are, where the minimum-norm
  ``A⁺B`` would wipe them out of the trained rows that do have them.

The condition number is found by Lanczos iteration on the Cholesky factor, which costs a hundredth of a full
eigen-decomposition (23 s for d = 2048 on two cores, against 0.2 s for Cholesky).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from darumeru.errors import UserError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Blocks = Callable[[], Iterable[tuple["NDArray[np.float64]", "NDArray[np.float64]"]]]
"""A function that yields matching blocks of rows of A and B, the same ones at each call."""

_PLAIN = 1e4
_REFINED = 1e7
_PANEL = 512


@dataclass(frozen=True)
class Fit:
    """A linear map fitted to n rows.

    Attributes:
        map: X, d x d, float64.
        rows: n.
        rank: rank of A (d where it is full).
        condition: largest over smallest singular value of A (of those that count towards the rank).
        residual: ‖A X − B‖_F / ‖B‖_F; from Gram sums where n was read once, so that values below 1e-7 mean "zero".
        solver: what was used.
    """

    map: NDArray[np.float64]
    rows: int
    rank: int
    condition: float
    residual: float
    solver: Literal["cholesky", "cholesky, refined", "qr + gelsd", "ridge"]

    def apply(self, rows: torch.Tensor, start: int = 0) -> torch.Tensor:
        """Return ``rows X`` (b x d), the same for rows from anywhere in the matrix."""
        import torch

        return rows @ torch.from_numpy(self.map).to(rows.dtype)

    def summary(self) -> dict[str, object]:
        """The figures for a manifest, and ‖X − Id‖_F / ‖Id‖_F."""
        dim = self.map.shape[0]
        square = 0.0
        for start in range(0, dim, _PANEL):  # in panels: a whole identity matrix would be d x d more
            part = self.map[start : start + _PANEL].copy()
            part[np.arange(len(part)), np.arange(start, start + len(part))] -= 1
            square += float(np.linalg.norm(part)) ** 2
        return {
            "rows": self.rows,
            "rank": self.rank,
            "condition": self.condition,
            "residual": self.residual,
            "distance_from_identity": float(np.sqrt(square / dim)),
            "solver": self.solver,
        }


@dataclass(frozen=True)
class Gram:
    """``G = AᵀA``, ``R = AᵀB`` (d x d, float64) and ``‖B‖²`` of n rows; `equal` where A and B are the same."""

    gram: torch.Tensor
    cross: torch.Tensor
    target: float
    rows: int
    equal: bool

    def clone(self) -> Gram:
        """A copy that may be overwritten."""
        return replace(self, gram=self.gram.clone(), cross=self.cross.clone())


def accumulate(blocks: Blocks, dim: int) -> Gram:
    """Sum the Gram matrices block by block; only the upper panels of the symmetric one are multiplied."""
    import torch

    gram = torch.zeros(dim, dim, dtype=torch.float64)
    cross = torch.zeros(dim, dim, dtype=torch.float64)
    target = 0.0
    rows = 0
    equal = True
    for left, right in blocks():
        a, b = torch.from_numpy(left), torch.from_numpy(right)
        equal = equal and torch.equal(a, b)
        add_symmetric(gram, a, a)
        cross.addmm_(a.T, b)
        target += float(torch.linalg.vector_norm(b)) ** 2
        rows += len(left)
    return Gram(gram, cross, target, rows, equal)


def add_symmetric(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """``total += leftᵀ right`` where the sum is symmetric: its upper panels are multiplied, the rest is mirrored."""
    dim = total.shape[0]
    for start in range(0, dim, _PANEL):
        stop = min(start + _PANEL, dim)
        total[start:stop, start:].addmm_(left[:, start:stop].T, right[:, start:])
        total[stop:, start:stop] = total[start:stop, stop:].T


def least_squares(blocks: Blocks, dim: int, sums: Gram | None = None) -> Fit:
    """The least-squares map of ``A`` onto ``B`` (d x d, float64), where rank is missing the one nearest to the identity.

    Args:
        blocks: yields rows of A and B, b x d each; read where the sums do not suffice.
        dim: d.
        sums: the Gram sums of these rows, where the caller has them. They are overwritten: d x d is 134 MB at d = 4096.

    Raises:
        UserError: there are no rows.
    """
    import torch

    if sums is None:
        sums = accumulate(blocks, dim)
    rows, target, equal = sums.rows, sums.target, sums.equal
    if rows == 0:
        raise UserError("There are no rows to fit a map to. Check that the vocabularies belong to these models.")
    if rows < dim:
        return _by_qr(blocks, dim, rows)
    factor, solution = sums.gram, sums.cross
    del sums
    info = torch.zeros((), dtype=torch.int32)
    torch.linalg.cholesky_ex(factor, out=(factor, info))
    condition = _condition(factor) if int(info) == 0 else float("inf")
    if not condition <= _REFINED:
        return _by_qr(blocks, dim, rows)
    if equal:  # the identity itself, not the identity up to rounding: zeros stay zeros
        return Fit(np.eye(dim), rows, dim, condition, 0.0, "cholesky")
    torch.linalg.solve_triangular(factor, solution, upper=False, out=solution)
    # ‖AX − B‖² = ‖B‖² − tr(XᵀGX) at the minimum, and tr(XᵀGX) = ‖L⁻¹R‖² with G = LLᵀ.
    explained = float(torch.linalg.vector_norm(solution)) ** 2
    torch.linalg.solve_triangular(factor.T, solution, upper=True, out=solution)
    refined = condition > _PLAIN
    if refined:
        for _ in range(4):
            step = torch.zeros_like(solution)
            for left, right in blocks():
                a, b = torch.from_numpy(left), torch.from_numpy(right)
                step.addmm_(a.T, b - a @ solution)
            step = torch.cholesky_solve(step, factor)
            solution += step
            if torch.linalg.vector_norm(step) <= 1e-13 * torch.linalg.vector_norm(solution):
                break
    residual = float(np.sqrt(max(0.0, 1 - explained / target))) if target else 0.0
    return Fit(solution.numpy(), rows, dim, condition, residual, "cholesky, refined" if refined else "cholesky")


def ridge(sums: Gram, strength: float) -> Fit:
    """The map shrunk towards the identity: ``D = Id + (G + λ Id)⁻¹ Aᵀ(B − A)``.

    λ → 0 gives the least-squares map, λ → ∞ the identity.

    Args:
        sums: Gram sums of A and B.
        strength: λ in units of the mean eigenvalue of G (trace / d), so that it compares across models.
    """
    import torch

    dim = sums.gram.shape[0]
    unit = float(torch.trace(sums.gram)) / dim
    if not strength > 0 or not unit > 0:
        raise UserError(f"The ridge strength must be above 0, not {strength}. Values from 0.001 to 10 are usual.")
    identity = torch.eye(dim, dtype=torch.float64)
    shrunk = sums.gram + strength * unit * identity
    factor = torch.linalg.cholesky(shrunk)
    solution = identity + torch.cholesky_solve(sums.cross - sums.gram, factor)
    # ‖AX − B‖² = tr(XᵀGX) − 2 tr(XᵀR) + ‖B‖²
    square = float(((sums.gram @ solution - 2 * sums.cross) * solution).sum()) + sums.target
    residual = float(np.sqrt(max(0.0, square) / sums.target)) if sums.target else 0.0
    return Fit(solution.numpy(), sums.rows, dim, _condition(factor), residual, "ridge")


def _condition(factor: torch.Tensor) -> float:
    """Square root of the largest over the smallest eigenvalue of LLᵀ, by Lanczos on it and on its inverse."""
    import torch
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    dim = factor.shape[0]
    if dim < 3:
        values = torch.linalg.svdvals(factor)
        return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")

    def product(vector: Any) -> Any:
        column = torch.from_numpy(np.ascontiguousarray(vector).reshape(dim))
        return (factor @ (factor.T @ column)).numpy()

    def inverse(vector: Any) -> Any:
        column = torch.from_numpy(np.ascontiguousarray(vector).reshape(dim, 1))
        return torch.cholesky_solve(column, factor).numpy()[:, 0]

    start = np.random.default_rng(0).standard_normal(dim)
    largest = []
    for apply in (product, inverse):
        operator = LinearOperator((dim, dim), matvec=apply, dtype=np.float64)
        try:
            found = eigsh(operator, k=1, which="LA", v0=start, tol=1e-2, return_eigenvectors=False)
        except ArpackNoConvergence as error:
            found = error.eigenvalues
        largest.append(float(found[-1]) if len(found) else float("inf"))
    return float(np.sqrt(largest[0] * largest[1]))


def _by_qr(blocks: Blocks, dim: int, rows: int) -> Fit:
    import torch

    triangle = torch.zeros(0, dim, dtype=torch.float64)
    right_side = torch.zeros(0, dim, dtype=torch.float64)
    for left, right in blocks():
        stacked = torch.cat([triangle, torch.from_numpy(left)])
        q, triangle = torch.linalg.qr(stacked)
        right_side = q.T @ torch.cat([right_side, torch.from_numpy(right - left)])
    cut = float(np.finfo(np.float64).eps) * max(rows, dim)
    solved = torch.linalg.lstsq(triangle, right_side, rcond=cut, driver="gelsd")
    solution = torch.eye(dim, dtype=torch.float64) + solved.solution
    rank = int(solved.rank)
    values = solved.singular_values
    condition = float(values[0] / values[rank - 1]) if rank else float("inf")
    off = target = 0.0
    for left, right in blocks():
        b = torch.from_numpy(right)
        off += float(torch.linalg.vector_norm(torch.from_numpy(left) @ solution - b)) ** 2
        target += float(torch.linalg.vector_norm(b)) ** 2
    residual = float(np.sqrt(off / target)) if target else 0.0
    return Fit(solution.numpy(), rows, rank, condition, residual, "qr + gelsd")
