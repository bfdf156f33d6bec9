"""Means on boards: none over a part under the name of the whole, the same where further tasks were run."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from darumeru.leaderboard import build
from support.synthetic import GROUPS, TASKS, edited, make_run

RUNS = Path(__file__).parents[2] / "leaderboards" / "runs"
"""Two real runs: SmolLM2 with all 17 tasks, gemma with 5 of them, 3 of DaruMERA's 8."""


def csv_of(site: Path) -> dict[str, dict[str, str]]:
    with (site / "table.csv").open(encoding="utf-8") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def data_of(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


def test_a_mean_over_a_part_stands_nowhere_as_the_whole_s(tmp_path: Path) -> None:
    site = build([RUNS], tmp_path / "site", baseline="SmolLM2-135M-Instruct", published=False, samples=False).path
    table = csv_of(site)
    part, whole = table["gemma"], table["SmolLM2-135M-Instruct"]
    for column in ("micro_avg", "darumera", "darusum", "darucopy_ru"):
        assert whole[column]
        assert {v for k, v in part.items() if k == column or k.startswith(f"{column}_")} <= {""}, column
    assert part["rwsd"], "its tasks are shown"
    known = {"micro_avg", "darummlu", "darumera", "darusum", "darucopy_en", "darucopy_ru"}
    rows = {row["name"]: row for row in json.loads((site / "table.json").read_text(encoding="utf-8"))["rows"]}
    assert not known & rows["gemma"]["scores"].keys()
    assert known <= rows["SmolLM2-135M-Instruct"]["scores"].keys()
    shown = next(r for r in data_of(site / "data" / "board.js")["rows"] if r["name"] == "gemma")
    assert not (known | {"suite"}) & shown["s"].keys()
    items = json.loads((site / "feed.json").read_text(encoding="utf-8"))["items"]
    told = next(item for item in items if item["title"].startswith("gemma"))
    assert "mean" not in told["title"]
    assert "micro_avg" not in told["content_text"]
    assert "0.296" not in (site / "table.md").read_text(encoding="utf-8")


def test_the_page_of_a_part_names_its_means_truly(tmp_path: Path) -> None:
    site = build([RUNS / "gemma-3-270m-mini-part"], tmp_path / "site", published=False, samples=False).path
    page = next((site / "runs").glob("*/index.html")).read_text(encoding="utf-8")
    rows = dict(
        re.findall(r'<tr class="(?:whole|group)"><th scope="row">([^<]*)</th><td class="n">(?:<b>)?([^<]*)', page)
    )
    assert rows["Mean of 5 of 17 tasks"] == "0.296"
    assert rows["DaruMERA, 3 of 8"] == "0.348"
    assert not {"Micro-Avg", "DaruMERA"} & rows.keys()


def test_a_curve_has_no_mean_over_a_part(tmp_path: Path) -> None:
    for step, tasks in ((100, None), (200, None), (300, ["cp_sent_ru", "cp_sent_en", "parus"])):
        training = {"name": "t", "step": step, "tokens_seen": step}
        make_run(tmp_path / "runs" / str(step), "m", seed=step, tasks=tasks, training=training)
    site = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).path
    curves = data_of(site / "data" / "board.js")["curves"]["steps"]
    assert {point["x"] for point in curves} == {100, 200}


def test_what_thinking_costs_names_no_mean_over_a_part(tmp_path: Path) -> None:
    on = {"mode": "on", "budget": 512, "end": "</think>", "template_args": {}}
    make_run(tmp_path / "runs" / "a", "thinker", skill=0.8, tasks=["parus", "rwsd"], thinking=on)
    site = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).path
    text = (site / "table.md").read_text(encoding="utf-8").partition("What thinking costs")[2]
    cells = [c.strip() for c in next(x for x in text.splitlines() if x.startswith("| thinker")).split("|")]
    assert cells[3:5] == ["—", "—"]
    assert csv_of(site)["thinker"]["micro_avg_finished"] == ""


def with_another_task(folder: Path, name: str, **options: Any) -> Path:
    """A run of all 17 tasks and one more, whose mean is over 18."""
    run = make_run(folder, name, tasks=[*TASKS, "gazeta"], **options)

    def counted(header: dict[str, Any]) -> None:
        header["suite"]["summary"] = "Mean of 18 tasks"
        header["suite"]["groups"].append({"name": "other", "title": "Other tasks", "tasks": ["gazeta"]})

    def mean(scores: dict[str, Any]) -> None:
        values = [task["score"]["value"] for task in scores["tasks"].values()]
        scores["suite"] |= {"value": sum(values) / len(values), "title": "Mean of 18 tasks"}
        scores["groups"]["other"] = scores["tasks"]["gazeta"]["score"] | {"title": "Other tasks"}

    return edited(edited(run, "header.json", counted), "scores.json", mean)


def test_a_further_task_changes_neither_mean_nor_rank(tmp_path: Path) -> None:
    options: dict[str, Any] = {"skill": 0.55, "seed": 2, "documents": 60}
    make_run(tmp_path / "runs" / "a", "plain", **options)
    make_run(tmp_path / "runs" / "b", "weak", skill=0.2, seed=3, documents=60)
    with_another_task(tmp_path / "runs" / "c", "more", **options)
    site = build([tmp_path / "runs"], tmp_path / "site", baseline="weak", published=False, samples=False).path
    table = csv_of(site)
    plain, more = table["plain"], table["more"]
    assert plain["rank"] == more["rank"] == "1"
    assert plain["data"] == more["data"]
    for column in ("micro_avg", "micro_avg_diff", "darumera"):
        assert float(plain[column]) == pytest.approx(float(more[column]), abs=1e-6), column
    for end in ("micro_avg_low", "micro_avg_high"):
        assert float(plain[end]) == pytest.approx(float(more[end]), abs=0.01), end
    page = next(p for p in (site / "runs").glob("more*/index.html")).read_text(encoding="utf-8")
    assert "Micro-Avg" in page
    assert "Mean of 18 tasks" not in page


def test_a_further_task_that_failed_takes_nothing_away(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", "plain", seed=2)
    run = with_another_task(tmp_path / "runs" / "b", "more", seed=2)
    edited(run, "scores.json", lambda s: s["suite"].update(value=None, low=None, high=None))
    site = build([tmp_path / "runs"], tmp_path / "site", published=False, samples=False).path
    table = csv_of(site)
    assert table["more"]["rank"] == "1"
    assert table["more"]["micro_avg"] == table["plain"]["micro_avg"]


# -- other suites -----------------------------------------------------------------------------------------------------


def of_suite(folder: Path, name: str, suite: str, summary: str, counts: bool = True, **options: Any) -> Path:
    """A run of all tasks of a suite of that name, in the groups of ours."""
    groups = [{"name": g, "title": t, "tasks": tasks, "counts": counts} for g, (t, tasks) in GROUPS.items()]
    described = {"name": suite, "version": "1.0", "summary": summary, "groups": groups}
    run = make_run(folder, name, suite=described, **options)
    return run if counts else edited(run, "scores.json", lambda s: s["suite"].update(value=None, low=None, high=None))


def test_the_paper_s_rows_stand_on_boards_of_its_suite_alone(tmp_path: Path) -> None:
    of_suite(tmp_path / "runs" / "a", "one", "mine", "Mean of mine")
    site = build([tmp_path / "runs"], tmp_path / "site", samples=False).path
    rows = json.loads((site / "table.json").read_text(encoding="utf-8"))["rows"]
    assert [row["name"] for row in rows] == ["one"]
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "Mean of mine</dt>" in page
    assert not re.search(r"Micro-Avg|the five groups|of the paper", page)
    axes = [e["y"].get("axis") for e in (x["encoding"] for x in figure(site, "symbols")["layer"]) if "y" in e]
    assert "Mean of mine" in {axis["title"] for axis in axes if axis}
    make_run(tmp_path / "ours", "ours")
    ours = build([tmp_path / "ours"], tmp_path / "ours-site", samples=False).path
    assert "The mean over tasks (17)" in (ours / "index.html").read_text(encoding="utf-8")
    assert len(json.loads((ours / "table.json").read_text(encoding="utf-8"))["rows"]) == 53


def figure(site: Path, name: str) -> Any:
    return data_of(site / "data" / "board.js")["figures"][name]


def test_a_board_without_any_mean_is_built(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        of_suite(tmp_path / "runs" / name, name, "mine", "No mean", counts=False, seed=number)
    site = build([tmp_path / "runs"], tmp_path / "site", baseline="one", samples=False).path
    table = csv_of(site)
    assert {(row["rank"], row["complete"], row["micro_avg"]) for row in table.values()} == {("", "True", "")}
    assert all(row["parus"] and row["darumera"] for row in table.values())
    assert not {"groups.svg", "radar.svg"} & {file.name for file in (site / "figures").iterdir()}
    assert (site / "table.tex").read_text(encoding="utf-8").count("& -- &") >= 2
