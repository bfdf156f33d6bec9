"""A propagation method and an initialisation strategy of another package: one file and its metadata, nothing of ours."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lep
from darumeru.errors import DarumeruError, UserError
from lep.pipeline import load_recipe, plan
from lep.pipeline.recipe import SCHEMA, SHIPPED
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level

METHOD = """
from dataclasses import replace

import numpy as np

from lep.propagation.linalg import least_squares
from lep.propagation.method import method


@method("twice the trained rows", candidates=({"strength": 2.0},))
def doubled(matrices, *, strength: float = 0.1):
    fit = least_squares(matrices.shared_rows(), matrices.dim)
    return replace(fit, map=strength * np.eye(matrices.dim))
"""
STRATEGY = """
import numpy as np
import scipy.sparse

from lep.initialisation.rows import NewRows, with_rows
from lep.initialisation.strategy import strategy


@strategy("the row of the old token with the number of the seed")
def one_row(change, *, corpus=(), seed: int = 0):
    wanted = change.new_tokens
    chosen = (np.ones(len(wanted)), (np.arange(len(wanted)), np.full(len(wanted), seed)))
    rows = scipy.sparse.csr_array(chosen, shape=(len(wanted), change.old_rows))
    return NewRows(with_rows(change.mean, wanted, rows), measures={"texts": len(corpus)})
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as pip makes it, on the path of this process and of those that it starts."""
    place = tmp_path / "site"
    (place / "other_package-1.0.dist-info").mkdir(parents=True)
    (place / "other_package_method.py").write_text(METHOD)
    (place / "other_package_strategy.py").write_text(STRATEGY)
    (place / "other_package-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n"
    )
    entries = place / "other_package-1.0.dist-info" / "entry_points.txt"
    entries.write_text(
        "[lep.propagation]\ndoubled = other_package_method:doubled\n\n"
        "[lep.initialisation]\none-row = other_package_strategy:one_row\n"
    )
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]))
    return entries


@pytest.fixture
def models(make_model: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A base model, and the same in a larger vocabulary."""
    base = save_byte_level(make_model("base", "llama", rows=448, dtype="float32"), ENGLISH, 400)
    lep.initialise(base, save_byte_level(tmp_path / "tokenizer", ENGLISH + RUSSIAN, 500), tmp_path / "adapted")
    return base, tmp_path / "adapted"


def matrix(folder: Path) -> Any:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.get_input_embeddings().weight.detach()


def test_a_method_of_another_package_is_used_by_its_name(
    package: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapted = models
    manifest = lep.propagate(base, adapted, base, tmp_path / "out", method="doubled", strength=3.0)
    assert manifest["settings"] == {"method": "doubled", "strength": 3.0}
    assert manifest["measures"]["embedding"]["rank"] == 16
    trained, result = matrix(adapted), matrix(tmp_path / "out")
    assert torch.equal(
        result[3:500], 3 * trained[3:500]
    )  # the first three are control tokens, the instruct model's own
    with pytest.raises(UserError, match="Available: auto, conversion, delta, doubled, overlap, residual, ridge, swap"):
        lep.propagate(base, adapted, base, tmp_path / "other", method="magic")
    with pytest.raises(UserError, match="Did you mean 'doubled'"):
        lep.propagate(base, adapted, base, tmp_path / "other", method="doubeld")


def test_auto_tries_a_method_of_another_package(package: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapted = models
    manifest = lep.propagate(base, adapted, base, tmp_path / "out", method="auto", texts=RUSSIAN)
    scores = manifest["measures"]["bits_per_byte"]
    assert set(scores) == {
        "conversion", "delta", "doubled 2", "overlap", "residual", "ridge 0.01", "ridge 0.1", "ridge 1", "swap"
    }  # fmt: skip
    assert scores["doubled 2"] != scores["swap"]


def test_a_strategy_of_another_package_is_used_by_its_name(
    package: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    base, adapted = models
    manifest = lep.initialise(base, adapted, tmp_path / "out", strategy="one-row", seed=7, corpus=["a.txt", "b.txt"])
    assert manifest["settings"] == {"strategy": "one-row", "pad_to": 64, "seed": 7}
    assert manifest["measures"]["texts"] == 2
    old, new = matrix(base), matrix(tmp_path / "out")
    rows = int((new[:500] == old[7]).all(dim=1).sum())
    assert rows == manifest["measures"]["averaged"] + 1  # the new tokens, and the token itself
    with pytest.raises(UserError, match="Available: focus, mean, omp, one-row, random, random-row, weighted"):
        lep.initialise(base, adapted, tmp_path / "other", strategy="magic")


def test_the_help_and_the_recipe_know_them(package: Path, tmp_path: Path) -> None:
    for command, name in (("propagate", "doubled"), ("init", "one-row")):
        shown = subprocess.run(
            [sys.executable, "-m", "lep", command, "--help"], capture_output=True, text=True, check=True,
            env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        ).stdout  # fmt: skip
        assert name in shown
    propagate: Any = SCHEMA["propagate"]
    init: Any = SCHEMA["init"]
    assert "doubled" in json.dumps(propagate.model_json_schema()["properties"]["methods"])
    assert "one-row" in json.dumps(init.model_json_schema()["properties"]["strategy"])
    changes = ["propagate.methods=[doubled, swap]", "propagate.strength=2", "init.strategy=one-row"]
    recipe = load_recipe("template", changes)
    steps = {state.step.name: state.step for state in plan(recipe, tmp_path / "out")}
    assert steps["propagate-doubled"].settings == {"method": "doubled", "strength": 2}
    assert steps["propagate-swap"].settings == {"method": "swap"}
    # It has a parameter `corpus`: the step reads the texts, too.
    corpus = Path(yaml.safe_load((SHIPPED / "template.yaml").read_text())["corpus"][0]).name
    assert corpus in steps["init"].given
    with pytest.raises(UserError, match=r"'magic' is not possible. Choose one of conversion, delta, doubled"):
        load_recipe("template", ["propagate.methods=[magic]"])


def test_without_the_package_they_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'doubled' is not possible. Choose one of conversion, delta, overlap"):
        load_recipe("template", ["propagate.methods=[doubled]"])
    with pytest.raises(UserError, match=r"'one-row' is not possible. Choose one of focus, mean"):
        load_recipe("template", ["init.strategy=one-row"])


def test_what_is_wrong_with_a_package_is_said(package: Path, tmp_path: Path) -> None:
    package.write_text(
        "[lep.propagation]\ngone = other_package_gone:gone\nplain = other_package_method:np\n"
        "swap = other_package_method:doubled\n"
    )
    with pytest.raises(DarumeruError, match=r"'gone' \(other_package_gone:gone\) cannot be imported: No module named"):
        lep.propagate("base", "adapted", "instruct", tmp_path / "out", method="gone")
    with pytest.raises(DarumeruError, match=r"'plain' \(other_package_method:np\) is a module, not a Method"):
        lep.propagate("base", "adapted", "instruct", tmp_path / "out", method="plain")
    with pytest.raises(
        UserError, match=r"2 methods called 'swap': lep.propagation.methods.swap:swap, other_package_method"
    ):
        lep.propagate("base", "adapted", "instruct", tmp_path / "out", method="swap")
