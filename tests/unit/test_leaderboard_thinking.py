"""Boards and comparisons of models that think: rows of their own, cost, unfinished thoughts, the score without these."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from darumeru.leaderboard import build, compare
from darumeru.leaderboard.figures import thinking_values
from darumeru.leaderboard.site import Built
from darumeru.leaderboard.tables import model_index, run_markdown
from darumeru.record.run import Run
from support.synthetic import NASTY, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without thinking and with two budgets, and one that does not think."""
    folder = tmp_path_factory.mktemp("runs")
    off: Any = {"mode": "off", "template_args": {"enable_thinking": False}}
    make_run(folder / "off", "hybrid", skill=0.5, thinking=off)
    for budget in (512, 2048):
        on: Any = {"mode": "on", "budget": budget, "end": "</think>", "template_args": {"enable_thinking": True}}
        make_run(folder / str(budget), "hybrid", skill=0.5 + budget / 10_000, thinking=on, text=NASTY)
    make_run(folder / "plain", "plain", skill=0.4)
    return folder


@pytest.fixture(scope="module")
def built(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build([runs], tmp_path_factory.mktemp("site") / "site", published=False)


def test_thinking_on_and_off_are_rows_of_their_own_with_badges_cost_and_the_score_on_finished_answers(
    built: Built, runs: Path
) -> None:
    rows = {row.entry.name: row for row in built.board.rows}
    assert rows.keys() == {
        "hybrid (thinking off)", "hybrid (thinking on, budget 512)", "hybrid (thinking on, budget 2,048)", "plain",
    }  # fmt: skip
    assert len({row.pool for row in rows.values()}) == 1  # ranked together: the documents are the same
    kinds = {name: {badge.kind for badge in row.badges} for name, row in rows.items()}
    assert "thinking_off" in kinds["hybrid (thinking off)"]
    assert {"thinking_on", "unfinished_thoughts"} <= kinds["hybrid (thinking on, budget 512)"]
    assert not any("think" in kind or "thought" in kind for kind in kinds["plain"])
    table = pd.read_csv(built.path / "table.csv").set_index("model")
    on, off = table.loc["hybrid (thinking on, budget 512)"], table.loc["hybrid (thinking off)"]
    assert (on.thinking_budget, on.tokens_per_document, on.thought_tokens_per_document) == (512, 259, 256)
    assert (on.unfinished_thoughts, on.seconds_per_document) == (0.2, 0.05)
    assert on.micro_avg_finished != on.micro_avg
    assert (off.tokens_per_document, off.thought_tokens_per_document) == (3, 0)
    assert math.isnan(off.micro_avg_finished)
    spent = rows["hybrid (thinking on, budget 512)"].entry.spent
    assert spent is not None
    # The score on finished answers is a mean over tasks of what their finished documents give.
    for file in sorted((runs / "512" / "samples").glob("*.jsonl")):
        kept = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [row for row in kept if not row["requests"][0]["answer"].get("unfinished")]
        assert len(kept) == 16
        if file.stem not in ("rcb", "ruopenbookqa"):  # these have F1 too
            mean = sum(next(iter(row["score"].values())) for row in kept) / 16
            assert spent.finished[file.stem] == pytest.approx(mean)
    assert "What thinking costs" in (built.path / "table.md").read_text()


def test_the_cost_of_thinking_is_one_line_a_model_from_off_through_the_budgets(built: Built) -> None:
    values = thinking_values(built.board.rows)
    assert [(v["setting"], v["tokens"]) for v in values] == [("off", 3), ("512", 259), ("2,048", 1027)]
    assert {v["model"] for v in values} == {"hybrid"}
    assert len({v["series"] for v in values}) == 1
    assert (built.path / "figures" / "thinking.svg").is_file()


def test_a_board_without_thinking_says_nothing_of_it(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "plain", "plain")
    site = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).path
    assert "hinking" not in (site / "table.md").read_text()
    assert not (site / "figures" / "thinking.svg").exists()


def test_two_runs_that_think_otherwise_are_compared_with_a_warning(runs: Path) -> None:
    remarks = compare(Run(runs / "off"), Run(runs / "512")).remarks
    assert remarks[0].startswith("Thinking differs: off against on, budget 512.")
    assert remarks[1].startswith("B: 20.0% of the thoughts did not end; these answers are empty and count as wrong.")
    assert not compare(Run(runs / "plain"), Run(runs / "plain")).remarks


def test_a_model_card_says_whether_the_model_thought(runs: Path) -> None:
    card = yaml.safe_load(model_index(Run(runs / "512")))
    metrics = [metric for result in card["model-index"][0]["results"] for metric in result["metrics"]]
    assert {metric["args"]["thinking"] for metric in metrics} == {"on, budget 512"}
    assert run_markdown(Run(runs / "512")).startswith("hybrid, instruct, zero-shot, thinking on, budget 512, data:")
    assert "thinking" not in model_index(Run(runs / "plain"))
