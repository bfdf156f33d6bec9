"""Rounding that keeps small changes on average."""

from __future__ import annotations

import pytest
import torch

from lep.model.rounding import generator_for, round_unbiased


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_changes_survive_on_average_and_the_rest_stays(dtype: torch.dtype) -> None:
    stored = torch.randn(400, 500, generator=torch.Generator().manual_seed(1)).to(dtype).float()
    assert torch.equal(round_unbiased(stored, dtype, generator_for("w")).float(), stored)
    change = stored.abs() * torch.finfo(dtype).eps * 0.1  # a tenth of a step or less: the nearest number is the old one
    assert torch.equal((stored + change).to(dtype).float(), stored)
    rounded = round_unbiased(stored + change, dtype, generator_for("w")).float()
    assert float((rounded - stored).sum() / change.sum()) == pytest.approx(1, abs=0.05)
    # Only ever one of the two neighbours.
    assert bool(((rounded - stored - change).abs() <= stored.abs() * torch.finfo(dtype).eps).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_edges(dtype: torch.dtype) -> None:
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    special = torch.tensor([0.0, -0.0, largest, -largest, float("inf"), -float("inf"), smallest, -smallest / 4])
    assert torch.equal(round_unbiased(special, dtype, generator_for("w")).float(), special)
    assert bool(round_unbiased(torch.tensor([float("nan")]), dtype, generator_for("w")).isnan())
    tiny = torch.full((100_000,), float(smallest) * 0.3 * torch.finfo(dtype).eps)  # below the smallest number
    assert float(round_unbiased(tiny, dtype, generator_for("w")).float().mean() / tiny[0]) == pytest.approx(1, abs=0.05)


def test_draws_depend_on_name_and_seed_alone() -> None:
    values = torch.rand(1000)
    draws = [
        round_unbiased(values, torch.bfloat16, generator_for(*a)) for a in (("a", 1), ("a", 1), ("b", 1), ("a", 2))
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
