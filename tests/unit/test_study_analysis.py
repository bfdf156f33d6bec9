"""What a study says of its cells: ranks, controls, costs, the recommendation, the paper's findings. Results are made up."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from darumeru.scoring.aggregate import Floats
from lep.study import read_grid
from lep.study.analysis import Comparison, Configuration, configurations, costs, longest, recommend
from lep.study.findings import (
    DISAGREES,
    Evidence,
    bases,
    efficiency,
    judge,
    language,
    mean_and_random,
    simplest,
    start_and_end,
)
from lep.study.grid import Cell, Grid
from lep.study.results import Measured, Result, Text
from support.study import write_grid

DOCUMENTS = 30
AXES = {"vocab.extend.add": [0, 1000, 4000], "init.strategy": ["mean", "random"], "tokens": [256, 512], "seed": [0, 1]}
Bits = Callable[[Cell], float]


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return read_grid(write_grid(tmp_path, axes=AXES))


def model(bits: float, hardness: Floats, symbols: float, tokens: int) -> Measured:
    """A model with so many bits per byte of a text whose documents are harder or easier by some bits."""
    size = np.full(len(hardness), 1000.0)
    text = Text((bits + hardness) * math.log(2) * size, size, symbols, 5 / symbols, symbols * 2)
    return Measured({"ru": text, "en": text}, tokens, 0.5, None)


def results(
    grid: Grid, end: Bits, start: Bits = lambda _: 3.0, *, noise: float = 0.0, seed: int = 0, original: float = 2.0
) -> list[Result]:
    """Results in which a document is as hard for all; `noise` is of each cell and document apart."""
    draw = np.random.default_rng(seed)
    hardness = draw.normal(0, 0.3, DOCUMENTS)
    hardness -= hardness.mean()
    made = []
    for cell in grid.cells:
        new = cell.values["vocab.extend.add"]
        own = model(end(cell), hardness + draw.normal(0, noise, DOCUMENTS), 1.2 + new / 4000, 600 + new)
        points = ((0, 0, start(cell)), (9, cell.tokens, end(cell)))
        curve: list[dict[str, Any]] = [
            {
                "step": step,
                "tokens": tokens,
                "characters": 4 * tokens,
                "seconds": 40.0 * step,
                "bits": {"ru": bits, "en": 1.0},
            }
            for step, tokens, bits in points
        ]
        made.append(
            Result(
                cell, own, model(original, hardness, 1.2, 600), curve, 4 * cell.tokens, 1e9 * cell.tokens, 1e8, 360.0
            )
        )
    return made


def strategy(cell: Cell) -> str | None:
    value: str | None = cell.values["init.strategy"]
    return value


# -- configurations -----------------------------------------------------------------------------------------------------


def test_two_bases_of_one_last_part_are_two_levels(tmp_path: Path) -> None:
    names = ["meta-llama/Llama-3.2-1B", "unsloth/Llama-3.2-1B"]
    axes = {"base": names, "vocab.extend.add": [1000, 4000], "seed": [0, 1]}
    grid = read_grid(write_grid(tmp_path, axes=axes))
    # The second base ends half a bit above the first, whatever else.
    found = results(grid, lambda c: 1.5 + 0.5 * (c.values["base"] == names[1]) + 0.001 * c.seed)
    (contrast,) = Evidence(configurations(found, "ru"), (), "ru").contrasts("base")
    assert {contrast.first, contrast.level} == set(names)
    assert abs(contrast.value) == pytest.approx(0.5)


def test_bases_are_compared_where_all_were_trained_as_long(tmp_path: Path) -> None:
    """The cells of a base that takes long may have been run with the fewest tokens alone."""
    axes = {"base": ["org/small", "org/large"], "vocab.extend.add": [1000, 4000], "tokens": [256, 512], "seed": [0, 1]}
    grid = read_grid(write_grid(tmp_path, axes=axes))

    def large(cell: Cell) -> bool:
        return cell.values["base"] == "org/large"

    # With 512 tokens the small base would be at 0.4; with 256 it is at 1.4 and the large one at 0.9.
    found = results(grid, lambda c: (0.9 if large(c) else 1.4) - (c.tokens == 512))
    found = [
        replace(r, original=model(1.0 if large(r.cell) else 2.0, np.zeros(DOCUMENTS), 1.2, 600))
        for r in found
        if not (large(r.cell) and r.cell.tokens == 512)
    ]
    items = configurations(found, "ru")
    verdict, because = bases(Evidence(items, (), "ru"))
    assert verdict == DISAGREES
    assert because == "small: 2.000 before, 1.400 at best; large: 1.000 before, 0.900 at best"


def test_a_configuration_is_its_cells_of_all_seeds(grid: Grid) -> None:
    items = configurations(results(grid, lambda c: 1.5 + c.seed), "ru")
    assert len(items) == 10  # 2 controls, 2 x 2 x 2 others
    assert all(len(item.results) == 2 and item.end == pytest.approx(2.0) for item in items)
    assert {tuple(item.values) for item in items} == {("vocab.extend.add", "init.strategy", "tokens")}
    assert {item.results[0].cell.tokens for item in longest(items)} == {512}


def test_differences_are_paired_and_ranks_shared(grid: Grid) -> None:
    """Documents differ by 0.3 bits, configurations by 0.05: only paired they are told apart."""

    def end(cell: Cell) -> float:
        return 1.5 if cell.control else 1.55 if cell.tokens == 512 else 1.8

    comparison = Comparison.of(configurations(results(grid, end, noise=0.02), "ru"))
    by_rank: dict[int, set[float]] = {}
    for item, rank in zip(comparison.items, comparison.ranks, strict=True):
        by_rank.setdefault(rank, set()).add(round(item.end, 1))
    # Two controls, four with 512 tokens, four with 256: 1, 3, 7.
    assert sorted(by_rank) == [1, 3, 7]
    assert by_rank[7] == {1.8}
    found = comparison.difference(0, 2)
    assert found.value == pytest.approx(comparison.items[2].end - comparison.items[0].end)
    assert found.low is not None and found.high is not None and found.high - found.low < 0.1


def test_seeds_that_differ_widen_the_intervals_and_join_ranks(grid: Grid) -> None:
    """The same means with seeds 0.2 apart: nothing is told apart by 0.05 any more."""

    def end(cell: Cell) -> float:
        return (1.5 if cell.control else 1.55) + 0.2 * cell.seed

    items = configurations(results(grid, end, noise=0.02), "ru")
    comparison = Comparison.of(items)
    assert comparison.spread is not None
    assert comparison.spread == (pytest.approx(0.2 / math.sqrt(2), rel=0.1), 10)
    assert set(comparison.ranks) == {1}
    # t of the sum with about 10 degrees of freedom: 2.2 standard errors of a difference of two means of two seeds.
    found = comparison.difference(0, 2)
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(2.2 * comparison.spread[0], rel=0.12)


def test_equal_configurations_share_the_first_rank_nearly_always(grid: Grid) -> None:
    wrong = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        made = results(grid, lambda _: 1.5 + draw.normal(0, 0.01), noise=0.05, seed=seed)  # noqa: B023
        wrong += set(Comparison.of(configurations(made, "ru")).ranks) != {1}
    assert wrong <= 6  # 2 expected of 40 at the 5 % level


def test_a_control_is_that_of_the_same_length(grid: Grid) -> None:
    comparison = Comparison.of(configurations(results(grid, lambda c: 1.5, noise=0.01), "ru"))
    pairs = [(comparison.items[p], comparison.items[c]) for p, c, _, _ in comparison.against_controls()]
    assert len(pairs) == 8
    assert all(c.control and not p.control and p.values["tokens"] == c.values["tokens"] for p, c in pairs)


# -- costs and the recommendation ---------------------------------------------------------------------------------------


def test_the_cheapest_of_those_that_cannot_be_told_from_the_best_is_recommended(grid: Grid) -> None:
    def end(cell: Cell) -> float:
        return 1.5 if cell.tokens == 512 else 1.9

    found = recommend(Comparison.of(configurations(results(grid, end, noise=0.05), "ru")))
    assert found.shared == 5
    # More symbols a token, so fewer operations a byte.
    assert found.chosen.values["vocab.extend.add"] == 4000
    assert found.behind is not None and found.behind.low is not None and found.behind.low > 0


def test_a_cost_is_of_a_gain(grid: Grid) -> None:
    items = configurations(results(grid, lambda c: 1.8 if c.tokens == 512 else 2.1), "ru")
    for item, cost in zip(items, costs(items), strict=True):
        if item.values["tokens"] == 512:
            # 0.2 bits for 0.1 hours.
            assert cost["hours_per_gain"] == pytest.approx(0.05)
            assert cost["flop_per_gain"] == pytest.approx(512e9 / 2)
        else:
            assert (cost["hours_per_gain"], cost["flop_per_gain"]) == (None, None)


# -- the paper's findings -----------------------------------------------------------------------------------------------


def evidence(made: list[Result], beside: list[dict[str, Any]] | None = None) -> Evidence:
    return Evidence(configurations(made, "ru"), beside or [], "ru")


@pytest.mark.parametrize(
    ("random", "noise", "verdict"), [(0.2, 0.02, "agrees"), (-0.2, 0.02, "disagrees"), (0.0, 0.02, "cannot tell")]
)
def test_mean_and_random(grid: Grid, random: float, noise: float, verdict: str) -> None:
    draw = np.random.default_rng(1)
    made = results(grid, lambda c: 1.5 + random * (strategy(c) == "random") + draw.normal(0, noise))
    assert mean_and_random(evidence(made))[0] == verdict


def test_start_and_end(grid: Grid) -> None:
    def size(cell: Cell) -> float:
        return float(cell.values["vocab.extend.add"]) / 4000

    def crossed(cell: Cell) -> float:
        return 2.0 - 0.3 * size(cell) - 0.1 * (strategy(cell) == "random")

    def start(cell: Cell) -> float:
        return 2.5 + size(cell) + 0.2 * (strategy(cell) == "random")

    assert start_and_end(evidence(results(grid, crossed, start, noise=0.01)))[0] == "agrees"
    # Four configurations in the same order are no proof: ρ of 1 among so few has no interval.
    assert start_and_end(evidence(results(grid, start, start, noise=0.01)))[0] == "cannot tell"
    assert start_and_end(evidence([r for r in results(grid, start, start) if r.cell.control]))[0] == "cannot tell"


def test_chance_of_seeds_is_that_of_the_whole_study(grid: Grid) -> None:
    """The longest trainings had one seed each; how much seeds differ is known from the shorter ones."""

    def start(cell: Cell) -> float:
        return 2.5 + float(cell.values["vocab.extend.add"]) / 4000 + 0.2 * (strategy(cell) == "random")

    def verdict(between_seeds: float) -> str:
        def end(cell: Cell) -> float:
            return 2.0 - 0.05 * (start(cell) - 2.5) + between_seeds * (cell.seed - 0.5) * (cell.tokens == 256)

        found = results(grid, end, start, noise=0.001)
        return start_and_end(evidence([r for r in found if r.cell.tokens == 256 or r.cell.seed == 0]))[0]

    assert verdict(0.0) == "agrees"
    assert verdict(0.2) == "cannot tell"


@pytest.mark.parametrize(("end", "verdict"), [(1.7, "agrees"), (2.3, "disagrees"), (2.0, "cannot tell")])
def test_efficiency(grid: Grid, end: float, verdict: str) -> None:
    assert efficiency(evidence(results(grid, lambda _: end, noise=0.1)))[0] == verdict


@pytest.mark.parametrize(
    "order", [["mean", "weighted"], ["random", "mean", "weighted"], ["weighted", "random", "mean"]]
)
def test_the_simplest_is_held_against_elaborate_ones_within_a_margin(tmp_path: Path, order: list[str]) -> None:
    axes = {**AXES, "init.strategy": order}
    grid = read_grid(write_grid(tmp_path, axes=axes))

    def verdict(worse: float, noise: float) -> str:
        draw = np.random.default_rng(2)
        end = lambda c: 1.5 + worse * (strategy(c) == "mean") + draw.normal(0, noise)  # noqa: E731
        return simplest(evidence(results(grid, end)))[0]

    assert verdict(0.0, 0.002) == "agrees"
    assert verdict(0.1, 0.002) == "disagrees"
    assert verdict(0.0, 0.1) == "cannot tell"


def test_the_best_choice_of_two_languages(grid: Grid) -> None:
    made = results(grid, lambda c: 1.5 if strategy(c) == "mean" and c.tokens == 512 else 1.9, noise=0.01)

    def other(best: str) -> dict[str, Any]:
        rows = [{"labels": levels_of(item), "rank": 1 if levels_of(item)["init.strategy"] == best else 3}
                for item in configurations(made, "ru")]  # fmt: skip
        return {"lang": "hi", "configurations": rows}

    assert language(evidence(made))[0] == "cannot tell"
    assert language(evidence(made, [other("random")]))[0] == "agrees"


def levels_of(item: Configuration) -> dict[str, str]:
    from lep.study.analysis import levels

    return levels(item)


def test_every_finding_has_a_verdict_of_the_three_and_what_it_rests_on(grid: Grid) -> None:
    found = judge(evidence(results(grid, lambda _: 1.5, noise=0.05)))
    assert len(found) >= 6
    assert {f.verdict for f in found} <= {"agrees", "disagrees", "cannot tell"}
    assert all(f.because and f.rule and f.source for f in found)
    # What the grid does not vary cannot be told.
    unknown = {f.claim for f in found if f.verdict == "cannot tell"}
    assert {c for c in unknown if "LoRA" in c or "language" in c or "base" in c} and len(unknown) >= 3
