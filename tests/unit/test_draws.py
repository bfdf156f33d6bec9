"""Where a board's draws come from: what the record tells is taken, an old record's silence is made up for, a lie is seen."""

from pathlib import Path

import numpy as np
import pytest

from darumeru.leaderboard.entry import Entry
from darumeru.leaderboard.load import read_run
from darumeru.record.run import Run
from darumeru.record.sample import table_of
from darumeru.scoring.aggregate import AGGREGATES
from darumeru.scoring.summary import score_task
from support.synthetic import edited, make_run

TASKS = ["rcb", "multiq"]


def entry_of(path: Path) -> Entry:
    result = read_run(path)
    assert isinstance(result, tuple), result
    return result[0]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", "m", tasks=TASKS, documents=15, seed=3)


def test_the_recorded_interval_comes_out_of_the_stored_samples(run: Path) -> None:
    for task, result in Run(run).scores.tasks.items():
        table = table_of(list(Run(run).samples(task)))
        metrics = {name: AGGREGATES[str(kind)] for name, kind in result.aggregates.items()}
        again, found = score_task(table, metrics, tuple(result.primary), 3, result.resamples)
        assert again["score"] == result.score.to_json(), task
        assert found.draws is not None
        # Nearly that of plain percentiles: 15 documents make it wider and skew it.
        assert np.quantile(found.draws, [0.025, 0.975]) == pytest.approx([result.score.low, result.score.high], abs=0.1)


def test_an_old_record_without_aggregates_gives_the_same_draws(run: Path) -> None:
    told = entry_of(run).tasks
    silent = entry_of(
        edited(run, "scores.json", lambda scores: [result.pop("aggregates") for result in scores["tasks"].values()])
    ).tasks
    for task in TASKS:
        assert silent[task].reproduced
        np.testing.assert_array_equal(told[task].draws, silent[task].draws)


def test_an_aggregate_that_does_not_give_the_recorded_number_is_not_used(run: Path) -> None:
    lie = edited(run, "scores.json", lambda scores: scores["tasks"]["rcb"]["aggregates"].update(acc="matthews"))
    tasks = entry_of(lie).tasks
    assert not tasks["rcb"].reproduced
    assert tasks["rcb"].draws is None
    assert tasks["multiq"].reproduced


def test_equal_documents_are_drawn_alike_whatever_the_seed_of_the_run(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", "m", tasks=TASKS, documents=15, seed=3)
    edited(other, "header.json", lambda header: header.update(seed=7))
    for task in TASKS:
        np.testing.assert_array_equal(entry_of(run).tasks[task].draws, entry_of(other).tasks[task].draws)
