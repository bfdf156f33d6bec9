"""`darumeru run --thinking-budget 16,40`: one run for each budget, and one clear sentence for what is none."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from darumeru.cli import app
from support.thinking import make_tasks


@pytest.fixture
def zoo(tmp_path: Path) -> dict[str, Any]:
    return make_tasks(tmp_path / "zoo")


def run(model: Path, zoo: dict[str, Any], output: Path, *more: str) -> Result:
    args = [
        "run", "--model", str(model), "--suite", "zoo", "--include-path", str(zoo["include_path"][0]), "--data", zoo["data"],
        "--engine", "hf", "--dtype", "float32", "--device", "cpu", "--output", str(output), *more,
    ]  # fmt: skip
    return CliRunner().invoke(app, args)


def test_several_budgets_make_one_run_each(thinking_model: Path, zoo: dict[str, Any], tmp_path: Path) -> None:
    done = run(thinking_model, zoo, tmp_path / "runs", "--thinking", "on", "--thinking-budget", "16,40", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [t["tasks"]["legs_said"]["unfinished_thoughts"] for t in told] == [4, 2]
    headers = [json.loads((Path(t["run"]) / "header.json").read_text()) for t in told]
    assert [h["thinking"]["budget"] for h in headers] == [16, 40]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    # One budget is one run, told as ever; it is there already.
    again = run(thinking_model, zoo, tmp_path / "runs", "--thinking", "on", "--thinking-budget", "40", "--json")
    assert json.loads(again.stdout)["run"] == told[1]["run"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--thinking", "on", "--thinking-budget", "16,many"], "'16,many' is no number of tokens"),
        (["--thinking", "on", "--thinking-budget", "16,0"], "--thinking-budget: 0 is not possible"),
        (["--thinking-budget", "16,40"], "it needs --thinking on"),
        (["--thinking", "on", "--thinking-budget", "16,40", "--until", "micro_avg ± 0.1"], "--until is of one run"),
    ],
)
def test_what_is_no_budget_is_refused_before_anything_is_computed(
    more: list[str], said: str, thinking_model: Path, zoo: dict[str, Any], tmp_path: Path
) -> None:
    refused = run(thinking_model, zoo, tmp_path / "runs", *more)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())
    assert not (tmp_path / "runs").exists()
