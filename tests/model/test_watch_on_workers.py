"""`darumeru watch --workers`: several checkpoints side by side, each exactly once. The workers are threads here."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import UserError
from darumeru.record.run import find_runs
from darumeru.watch import watch, watcher
from darumeru.workers import Pool
from support.checkpoints import aged, checkpoint, watch_once
from support.runs import samples
from support.workers import Counting, Threads, pool_of

ASKED: dict[str, Any] = {"tasks": ("rwsd_tenth",), "device": "cpu", "dtype": "float32"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads(2, lambda number: Counting())

    @contextmanager
    def opened(where: Any, gpus: bool) -> Iterator[Pool]:
        assert (where.workers, gpus) == (2, False)
        with pool_of(threads) as pool:
            yield pool

    monkeypatch.setattr(watcher, "open_pool", opened)
    return threads


def test_each_checkpoint_once_and_as_by_a_process_of_its_own(tiny_base: Path, tmp_path: Path, cluster: Threads) -> None:
    for step in (10, 20, 30, 40):
        checkpoint(tiny_base, tmp_path / "t", step)
    broken = checkpoint(tiny_base, tmp_path / "t", 25)
    (broken / "model.safetensors").write_bytes(b"nothing")
    aged(broken, 100)
    outcome = watch_once(tmp_path / "t", workers=2, **ASKED)
    assert [p.step for p in outcome.points] == [10, 20, 30, 40]
    assert list(outcome.failed) == [25]
    runs = find_runs(tmp_path / "runs")
    assert len(runs) == 4
    assert all(r.complete for r in runs)
    loads = [name for remote in cluster.started for name in remote.worker.loads]  # type: ignore[attr-defined]
    assert {f"checkpoint-{step}" for step in (10, 20, 30, 40)} <= set(loads)
    assert all(remote.worker.loads for remote in cluster.started), "both workers had work"  # type: ignore[attr-defined]
    for step in (10, 40):
        shutil.copytree(tmp_path / "t" / f"checkpoint-{step}", tmp_path / "other" / "t" / f"checkpoint-{step}")
    watch_once(tmp_path / "other" / "t", **ASKED)
    again = find_runs(tmp_path / "other" / "runs")
    by_workers = {r.path.name: r for r in runs}
    assert len(again) == 2
    for run in again:
        mine, theirs = samples(by_workers[run.path.name])["rwsd_tenth"], samples(run)["rwsd_tenth"]
        assert [row.pred for row in mine] == [row.pred for row in theirs]


def test_newest_first_leaves_none_waiting_for_ever(
    tiny_base: Path, tmp_path: Path, cluster: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of those under way at once one goes from the oldest on."""
    order: list[int] = []
    evaluate = watcher._Watch._evaluate

    def noted(self: Any, found: Any) -> None:
        order.append(found.step)
        evaluate(self, found)

    monkeypatch.setattr(watcher._Watch, "_evaluate", noted)
    for step in range(10, 70, 10):
        checkpoint(tiny_base, tmp_path / "t", step)
    watch_once(tmp_path / "t", workers=2, newest_first=True, **ASKED)
    assert order[:3] == [60, 10, 50]
    assert sorted(order) == [10, 20, 30, 40, 50, 60]


def test_one_gpu_and_workers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--device 'cuda:1' is one GPU"):
        watch(tmp_path, workers=2, device="cuda:1")
    with pytest.raises(UserError, match=r"--workers: 0 is not possible"):
        watch(tmp_path, workers=0)
