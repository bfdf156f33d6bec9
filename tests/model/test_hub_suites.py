"""All 23 tasks from a hub: a model that knows nothing, and data sets that cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.hub import Hub
from support.hub_client import SUITES, run, settings
from support.hub_data import lines, mini_rows


def test_a_model_that_always_says_the_same_scores_at_chance(
    hub: Hub, tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.serves(monkeypatch, tmp_path / "home")
    scores: dict[str, Any] = {}
    for suite in SUITES:
        scores |= run(str(tmp_path / "runs"), settings(tiny_chat, suite), constant=True)["scores"]["tasks"]
    acc = {name: result["metrics"]["acc"]["value"] for name, result in scores.items() if "acc" in result["metrics"]}
    # The first label is always taken: its share of the golds, counted here in the rows themselves.
    for task, label in (("rummlu", "A"), ("rcb", "1"), ("rwsd", "Да"), ("ruopenbookqa", "A"), ("ruworldtree", "A")):
        golds = [row["outputs"] for row in mini_rows(task, "test")]
        assert acc[task] == pytest.approx(golds.count(label) / len(golds)), task
        assert acc[task] == pytest.approx(1 / len(set(golds)), abs=0.06), task
    golds = [row["outputs"] for row in mini_rows("ruscibench_grnti_ru", "test")]
    assert acc["ruscibench_grnti_ru"] == pytest.approx(golds.count("A") / len(golds))
    assert acc["parus"] == acc["rutie"] == 0.0  # both orders must be right
    assert scores["rucola"]["metrics"]["mcc"]["value"] == 0.0
    for task in ("multiq", "use", "sum_abstractive", "cp_para_ru", "cp_para_en", "cp_doc_ru", "flores_ru_en", "gazeta"):
        assert scores[task]["score"]["value"] < 0.05, task


def test_a_data_set_that_cannot_be_had_fails_its_tasks_alone(
    hub: Hub, tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gated, without its configuration, broken: named with the reason; when they are to be had, only they are computed."""
    hub.repository("IlyaGusev/gazeta").gated = True
    ours = hub.repository("RefalMachine/darumeru")
    whole = dict(ours.commits[ours.branches["main"]])
    cut_card = whole["README.md"].decode().replace("config_name: ruscibench_grnti_ru", "config_name: ruscibenchgrntiru")
    ours.commit({**whole, "README.md": cut_card})
    hub.serves(monkeypatch, tmp_path / "home")
    arguments = (str(tmp_path / "runs"), settings(tiny_chat, "darumeru-extended"))
    first = run(*arguments)
    assert not first["complete"]
    failed = first["scores"]["failed"]
    assert set(failed) == {"gazeta", "ruscibench_grnti_ru"}
    assert "it is gated: accept its terms" in failed["gazeta"]
    assert (
        "Unknown configuration 'ruscibench_grnti_ru'. Did you mean 'ruscibenchgrntiru'?"
        in failed["ruscibench_grnti_ru"]
    )
    assert set(first["scores"]["tasks"]) == {"cp_doc_ru", "flores_ru_en", "flores_en_ru", "rutie"}
    assert first["scores"]["suite"]["value"] is None

    hub.repository("IlyaGusev/gazeta").gated = False
    second = run(*arguments)
    assert second["asked"] == ["gazeta"]
    assert set(second["scores"]["failed"]) == {"ruscibench_grnti_ru"}

    ours.commits[ours.branches["main"]] = whole  # the same commit: what was read before is still what the run is of
    hub.serves(monkeypatch, tmp_path / "elsewhere")
    third = run(*arguments)
    assert third["asked"] == ["ruscibench_grnti_ru"]
    assert third["complete"]
    assert third["scores"]["suite"]["value"] == 1.0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [third["name"]]


def test_rows_that_no_task_can_read_fail_that_task_alone(
    hub: Hub, tiny_chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card promises nothing of the fields: what is missing, or of another type, is found when the task reads the row."""
    hub.serves(monkeypatch, tmp_path / "home")
    rows = {task: mini_rows(task, "test") for task in ("parus", "rwsd")}
    del rows["parus"][2]["inputs"]["choice2"]
    for row in rows["rwsd"]:
        row["outputs"] = 1
    hub.repository("RefalMachine/darumeru").change({f"{task}/test.jsonl": lines(found) for task, found in rows.items()})
    done = run(str(tmp_path / "runs"), settings(tiny_chat, "darumeru", tasks=["parus", "rwsd", "rcb"]))
    assert set(done["scores"]["tasks"]) == {"rcb"}
    failed = done["scores"]["failed"]
    assert "data set 'parus', split 'test', row 3: field 'choice2'" in failed["parus"]
    assert "data set 'rwsd', split 'test', row 1: field 'outputs': label '1' is not one of Да, Нет" in failed["rwsd"]
