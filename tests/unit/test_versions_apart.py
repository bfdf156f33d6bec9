"""Runs of other task versions are neither ranked nor tested together; old records keep their rules until they are rescored."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from darumeru.evaluation import rescore
from darumeru.leaderboard.board import Board, make_board
from darumeru.leaderboard.compare import compare
from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.load import read_run, suite_of
from darumeru.leaderboard.published import read_published
from darumeru.leaderboard.tables import to_markdown
from darumeru.record.run import Run, load_run
from support.synthetic import edited, make_run

OLD = Path(__file__).parents[1] / "support" / "records" / "version-1.tar.xz"
"""SmolLM2-135M-Instruct on 12 documents of three tasks of the mini bundle, as commit 0a8899a wrote it."""


def asked_anew(path: Path) -> Path:
    return edited(path, "header.json", lambda header: [task.update(version="2.0") for task in header["tasks"].values()])


def scored_anew(path: Path) -> Path:
    return edited(path, "scores.json", lambda scores: scores["tasks"]["mmlu_ru"].update(scoring=2))


def board_of(*paths: Path, baseline: str | None = None) -> Board:
    entries: list[Entry] = []
    for path in paths:
        result = read_run(path)
        assert isinstance(result, tuple), result
        entries.append(result[0])
    return make_board(entries, suite_of(entries), baseline=baseline)


@pytest.mark.parametrize("anew", [asked_anew, scored_anew])
def test_another_version_is_another_section(tmp_path: Path, anew: Callable[[Path], Path]) -> None:
    old = [make_run(tmp_path / name, name, skill=0.4 + 0.2 * i, seed=i) for i, name in enumerate("ab")]
    new = [anew(make_run(tmp_path / name, name, skill=0.8, seed=2 + i)) for i, name in enumerate("cd")]
    board = board_of(*old, *new, baseline="a")
    section = {row.entry.name: row.pool for row in board.rows}
    assert section["a"] == section["b"] != section["c"] == section["d"]
    assert len({pool.title for pool in board.pools}) == 2
    assert all("tasks" in pool.title for pool in board.pools)
    # Of a run in the other section the difference is shown, but not called significant.
    deltas = {row.entry.name: row.deltas for row in board.rows}
    assert deltas["b"]["mmlu_ru"].significant is not None
    assert deltas["c"]["mmlu_ru"].significant is None


def test_compare_says_that_versions_differ(tmp_path: Path) -> None:
    first = Run(make_run(tmp_path / "a", "a", seed=1))
    asked = compare(first, Run(asked_anew(make_run(tmp_path / "b", "b", seed=2))))
    assert any("rcb (1.0 against 2.0)" in remark for remark in asked.remarks)
    scored = compare(first, Run(scored_anew(make_run(tmp_path / "c", "c", seed=3))))
    assert any("mmlu_ru (1 against 2)" in remark and "rescore" in remark for remark in scored.remarks)
    p = {line.column: line.difference.p for line in scored.lines}
    assert p["mmlu_ru"] is None
    assert p["rcb"] is not None


def test_a_record_from_before_keeps_its_rules_until_it_is_rescored(tmp_path: Path) -> None:
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    run = load_run(tmp_path / "version-1")
    before = run.scores.tasks
    entry = read_run(run.path)
    assert isinstance(entry, tuple)
    # Its means over the subjects are what its samples give: read as they were scored.
    assert entry[0].tasks["mmlu_ru"].reproduced
    assert entry[0].tasks["mmlu_ru"].scoring == 1
    after = rescore(run).scores.tasks
    changed = {name for name in after if after[name].scoring != (before[name].scoring or 1)}
    assert changed == {"mmlu_ru", "sum_extractive"}
    assert after["mmlu_ru"].metrics["acc_macro"].value == pytest.approx(before["mmlu_ru"].score.value)
    assert after["mmlu_ru"].aggregates["acc"] == "category_mean"
    for name in set(after) - {"mmlu_ru"}:
        assert after[name].score.value == pytest.approx(before[name].score.value), name
    # What was asked does not change by scoring it anew.
    assert {task.version for task in run.header.tasks.values()} == {"1.0"}
    anew = read_run(run.path)
    assert isinstance(anew, tuple)
    assert anew[0].tasks["mmlu_ru"].reproduced
    assert anew[0].tasks["mmlu_ru"].rules != entry[0].tasks["mmlu_ru"].rules
    assert anew[0].tasks["rcb"].rules == entry[0].tasks["rcb"].rules


def test_published_rows_say_by_which_lcs() -> None:
    rows = read_published()
    assert all("older lcs" in str(row.note) for row in rows)
    text = to_markdown(make_board(rows, suite_of(rows)))
    assert "DaruCopy probably by the older lcs" in text
