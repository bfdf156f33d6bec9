"""A grid is read: which cells it has, what is one cell, and what is refused. No model and no text is looked at."""

from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import UserError
from lep.cli.study import parse_hours
from lep.pipeline.stages import init, pretrain, vocab
from lep.study import read_grid
from support.study import GRID, write_grid


def axes(**changes: Any) -> dict[str, Any]:
    return {**GRID["axes"], **{key.replace("__", "."): value for key, value in changes.items()}}


def test_a_whole_grid_has_every_combination_and_each_control_once(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path))
    controls = [cell for cell in grid.cells if cell.control]
    # 2 x 2 x 2 x 2 = 16, of which a control has no initialisation.
    assert (len(grid.cells), len(controls), grid.merged) == (12, 4, 4)
    assert {(cell.tokens, cell.seed) for cell in controls} == {(256, 0), (256, 1), (512, 0), (512, 1)}
    assert all(cell.values["init.strategy"] is None for cell in controls)
    assert len({cell.id for cell in grid.cells}) == 12
    assert grid.axes["init.strategy"] == ["mean", "random"]


def test_a_cell_is_the_recipe_with_its_values(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path, axes=axes(vocab__extend__add=[40], pretrain__learning_rate=[0.1, 0.2])))
    cell = next(
        c
        for c in grid.cells
        if (c.values["pretrain.learning_rate"], c.tokens, c.seed, c.values["init.strategy"]) == (0.2, 512, 1, "random")
    )
    settings = cell.recipe[pretrain]
    assert settings.learning_rate == 0.2
    # 512 tokens are 4 steps of 4 x 32; measured along the way at each quarter.
    assert (settings.max_steps, settings.eval_steps, settings.seed, cell.recipe[init]["seed"]) == (4, 1, 1, 1)
    assert cell.recipe[vocab].settings["add"] == 40
    assert settings.train == "new-rows+lora"


def test_only_what_draws_has_a_seed(tmp_path: Path) -> None:
    seeds = {
        (c.values["init.strategy"], c.recipe[init]["seed"])
        for c in read_grid(write_grid(tmp_path)).cells
        if not c.control
    }
    assert seeds == {("mean", 0), ("random", 0), ("random", 1)}


def test_the_control_trains_what_it_has(tmp_path: Path) -> None:
    control = next(cell for cell in read_grid(write_grid(tmp_path)).cells if cell.control)
    assert control.recipe[pretrain].train == "lora"


def test_controls_that_are_the_same_training_are_one(tmp_path: Path) -> None:
    chosen = {"vocab.extend.add": [0, 40], "pretrain.shared_learning_rate": [0.0, 1e-4], "seed": [0, 1]}
    grid = read_grid(write_grid(tmp_path, axes=chosen))
    controls = [cell for cell in grid.cells if cell.control]
    assert [(cell.seed, cell.values["pretrain.shared_learning_rate"]) for cell in controls] == [(0, None), (1, None)]
    assert (len(grid.cells), grid.merged) == (6, 2)
    assert grid.axes["pretrain.shared_learning_rate"] == [0.0, 1e-4]
    # What the control has, too, is no such axis.
    chosen = {"vocab.extend.add": [0, 40], "pretrain.lora_learning_rate": [1e-4, 1e-3]}
    grid = read_grid(write_grid(tmp_path, axes=chosen))
    assert [c.values["pretrain.lora_learning_rate"] for c in grid.cells if c.control] == [1e-4, 1e-3]


def test_a_control_without_anything_to_train_is_left_out_and_said(tmp_path: Path) -> None:
    chosen = {"vocab.extend.add": [0, 40], "pretrain.train": ["new-rows", "new-rows+lora"]}
    grid = read_grid(write_grid(tmp_path, axes=chosen))
    assert [(c.control, c.values["pretrain.train"]) for c in grid.cells] == [
        (True, "new-rows+lora"),
        (False, "new-rows"),
        (False, "new-rows+lora"),
    ]
    assert grid.merged == 0
    assert "1 control is left out" in " ".join(grid.notes)


def test_the_same_values_are_the_same_cell_in_another_grid(tmp_path: Path) -> None:
    ids = {cell.id for cell in read_grid(write_grid(tmp_path)).cells}
    more = {cell.id for cell in read_grid(write_grid(tmp_path, axes=axes(seed=[1, 2]))).cells}
    assert len(ids & more) == 6


def test_cells_are_listed_or_ways_of_making_a_vocabulary_an_axis(tmp_path: Path) -> None:
    listed = [{"vocab.extend.add": 0, "tokens": 256}, {"vocab.extend.add": 40, "tokens": 512}]
    grid = read_grid(write_grid(tmp_path, axes=None, cells=listed))
    assert [(c.control, c.tokens) for c in grid.cells] == [(True, 256), (False, 512)]
    ways = [{"extend": {"add": 40}}, {"train": {"kind": "bpe", "size": 400}}]
    grid = read_grid(write_grid(tmp_path, axes={"vocab": ways}))
    assert [cell.recipe[vocab].way for cell in grid.cells] == ["extend", "train"]
    assert grid.cells[1].name == "vocabulary train kind bpe size 400"


def test_values_whose_last_parts_are_alike_are_told_apart(tmp_path: Path) -> None:
    for folder in ("clean", "raw"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ru.jsonl").write_text('{"text": "а"}\n')
    bases = ["meta-llama/Llama-3.2-1B", "unsloth/Llama-3.2-1B", "google/gemma-3-270m"]
    corpora = [["clean/ru.jsonl"], ["raw/ru.jsonl"]]
    grid = read_grid(write_grid(tmp_path, axes={"base": bases, "corpus": corpora}, vocab={"extend": {"add": 40}}))
    assert len(grid.cells) == len({cell.id for cell in grid.cells}) == len({cell.name for cell in grid.cells}) == 6
    assert grid.merged == 0
    assert list(dict.fromkeys(cell.labels["base"] for cell in grid.cells)) == [*bases[:2], "gemma-3-270m"]
    assert {cell.labels["corpus"] for cell in grid.cells} == {"clean/ru.jsonl", "raw/ru.jsonl"}
    assert str(tmp_path) not in " ".join(cell.name for cell in grid.cells)


def test_scripts_stand_for_a_language_that_is_not_known(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path, lang="tr", scripts=["Latin"]))
    cell = next(c for c in grid.cells if not c.control)
    assert list(cell.recipe[vocab].settings["scripts"]) == ["Latin"]
    assert cell.recipe[pretrain].scripts == ("Latin",)


def test_values_are_changed_from_outside(tmp_path: Path) -> None:
    grid = read_grid(write_grid(tmp_path), ["copies=0", "pretrain.learning_rate=0.5", "axes.seed=[7]"])
    assert grid.own.copies == 0
    assert {(c.seed, c.recipe[pretrain].learning_rate) for c in grid.cells} == {(7, 0.5)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": axes(init__strategy=["mean", "meen"])}, r"init.strategy: 'meen' is not possible. Choose one of .*mean"),
        ({"axes": axes(init__stratgy=["mean"])}, "Did you mean 'init.strategy'"),
        ({"axes": axes(tokens=[256, "many"])}, "tokens: 'many' is not possible"),
        ({"axes": axes(tokens=[0])}, "tokens: 0 is not possible"),
        ({"axes": axes(seed=[-1])}, "seed: -1 is not possible"),
        ({"axes": axes(vocab__extend__add=["x"])}, "vocab.extend.add: 'x' is not possible"),
        ({"axes": axes(seed=list(range(2500)))}, "The grid has 20,000 cells, and 1,000 is the most"),
        ({"axes": axes(seed=[0, 1, 0])}, "axes.seed has a value twice"),
        ({"axes": axes(seed=[])}, "axes.seed has no value"),
        ({"axes": axes(held_out=[{"ru": "a"}])}, "axes.held_out cannot be an axis"),
        ({"axes": axes(pretrain__max_steps=[1, 2])}, "write the axis as tokens"),
        ({"axes": axes(pretrain__seed=[1, 2])}, "write the axis as seed"),
        ({"axes": axes(pretrain__train=["new-rows"])}, "there is nothing to compare with"),
        ({"axes": None}, "neither axes nor cells"),
        ({"cells": [{"seed": 1}]}, "both axes and cells"),
        ({"axes": None, "cells": [{"seed": 1, "vocab.extend.add": 4}] * 2}, "numbers 1 and 2 are the same"),
        ({"axes": None, "cells": [{"seed": 1}, {"tokens": 9}]}, "number 1 does not say tokens"),
        ({"evaluate": {"data": "mini"}, "lang": "uk"}, "the benchmark is Russian"),
        ({"propagate": {}}, "Unknown key 'propagate'"),
        ({"axes": axes(), "vocab": {"swap": {"texts": []}}, "passes": 0}, "passes: 0 is not possible"),
        ({"pretrain": {"control": True}}, "the control of a grid is the cell with vocab.extend.add 0"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_grid(write_grid(tmp_path, **changes))


def test_a_grid_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no grid"):
        read_grid(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "hours"), [("10h", 10), ("1.5h", 1.5), ("30m", 0.5), ("2h15m", 2.25), ("0.5h30m", 1), ("1000000h", None),
                        ("", None), ("10", None), ("0h", None), ("-1h", None), ("30m2h", None), ("2 h", None), ("nanh", None)],
)  # fmt: skip
def test_a_budget_is_hours_and_minutes(text: str, hours: float | None) -> None:
    if hours is None:
        with pytest.raises(UserError, match=r"is no time\. Write hours or minutes above 0"):
            parse_hours(text)
    else:
        assert parse_hours(text) == hours
