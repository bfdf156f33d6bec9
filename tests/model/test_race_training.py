"""Checkpoints that race against the best one so far: in a watch, in its process, and in the training's own."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from darumeru.errors import UserError
from darumeru.evaluation import Plan, execute, prepare
from darumeru.leaderboard.load import read_run
from darumeru.race.challenge import challenge, lost
from darumeru.record.run import Run, find_runs
from darumeru.watch import DarumeruCallback, watcher
from darumeru.watch.checkpoints import Checkpoint
from model.test_training import trainer_of
from support.checkpoints import checkpoint, watch_once
from support.commands import call
from support.tiny import KnowingEngine

TASKS = ("cp_sent_ru", "cp_sent_en", "parus", "bpb_ru")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[int, KnowingEngine]:
    """Evaluations in this process with an engine that knows the answers, the fewer the farther from step 200; by step."""
    engines: dict[int, KnowingEngine] = {}

    def run(self: Any, found: Checkpoint) -> dict[str, Any]:
        def engine(plan: Plan) -> KnowingEngine:
            engines[found.step] = KnowingEngine(plan, spoil=abs(found.step - 200) / 300)
            return engines[found.step]

        plan, best = prepare(self._asked_of(found)), self._best() if self.races else None
        if best is None:
            return {"run": str(execute(plan, self.output, open_engine=engine).path)}
        return {"run": str(challenge(plan, Run(Path(best)), self.output, open_engine=engine).path)}

    monkeypatch.setattr(watcher._Watch, "_run", run)
    return engines


once = partial(watch_once, tasks=TASKS)


def test_a_checkpoint_that_is_worse_is_left_early_and_not_asked_again(
    tiny_base: Path, tmp_path: Path, asked: dict[int, KnowingEngine]
) -> None:
    for step in (100, 200, 400):
        checkpoint(tiny_base, tmp_path / "t", step)
    events: list[str] = []
    outcome = once(tmp_path / "t", race_against="best", report=lambda s: events.append(s.event) if s.event else None)
    whole = len(asked[100].asked)
    assert len(asked[200].asked) == whole, "a better one is evaluated as a whole"
    assert len(asked[400].asked) < whole / 2
    runs = {r.header.training.step: r for r in find_runs(tmp_path / "runs")}
    assert [runs[s].complete for s in (100, 200, 400)] == [True, True, False]
    told = lost(runs[400])
    assert told is not None
    assert told.best == runs[200].path.name
    assert told.difference[1] < 0
    assert any("checkpoint-400 is worse than" in event for event in events)
    # Its point is an estimate with an interval, below the best.
    points = {p.step: p for p in outcome.points}
    best = points[200].values["micro_avg"]
    low, high = points[400].bounds["micro_avg"]
    assert low < points[400].values["micro_avg"] < high < best
    assert "Only a part" in getattr(read_run(runs[400].path), "reason", "")
    # Another watch asks nothing again; one without a race asks the rest.
    asked.clear()
    assert once(tmp_path / "t", race_against="best").points == outcome.points
    assert not asked
    once(tmp_path / "t")
    assert 0 < len(asked[400].asked) < whole
    assert runs[400].complete


def test_the_true_score_lies_in_the_interval(tiny_base: Path, tmp_path: Path, asked: dict[int, KnowingEngine]) -> None:
    for step in (200, 400):
        checkpoint(tiny_base, tmp_path / "t", step)
    points = {p.step: p for p in once(tmp_path / "t", race_against="best").points}
    low, high = points[400].bounds["micro_avg"]
    whole = {p.step: p for p in once(tmp_path / "t").points}
    assert low <= whole[400].values["micro_avg"] <= high


def test_in_a_process_of_its_own(tiny_base: Path, tmp_path: Path) -> None:
    for step in (10, 20):
        checkpoint(tiny_base, tmp_path / "t", step)
    out = call(
        "watch", tmp_path / "t", "--once", "--data", "mini", "--engine", "hf", "--tasks", "parus,rwsd", "--num-fewshot", 0,
        "--output", tmp_path / "runs", "--race-against", "best",
    )  # fmt: skip
    assert "checkpoint-20 is" in out
    runs = find_runs(tmp_path / "runs")
    assert len(runs) == 2
    assert all(run.complete or lost(run) for run in runs)


def test_in_the_process_of_the_training(tiny_base: Path, tmp_path: Path) -> None:
    callback = DarumeruCallback(
        every=2, runs=tmp_path / "runs", tasks=("cp_sent_ru", "rwsd_tenth"), num_fewshot=0, race_against="best"
    )
    trainer = trainer_of(tiny_base, tmp_path / "out", learning_rate=0.5)
    callback.attach(trainer)
    trainer.train()
    assert callback.failures == []
    runs = sorted(find_runs(tmp_path / "runs"), key=lambda r: r.header.training.step)
    assert [r.header.training.step for r in runs] == [0, 2, 4, 6]
    assert runs[0].complete
    assert all(run.complete or lost(run) for run in runs)
    logged = [e for e in trainer.state.log_history if "eval_darumeru/micro_avg" in e]
    assert [e["step"] for e in logged] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"race_against": "first"}, "'best', or nothing"),
        ({"race_against": "best", "keep_best": "cp_sent_ru"}, "decides by micro_avg"),
        ({"race_against": "best", "exact": True}, "--exact needs the whole evaluation"),
        ({"race_against": "best", "tasks": ("bpb_ru",)}, "of these none does"),
    ],
)
def test_races_that_make_no_sense(more: dict[str, Any], fault: str, tiny_base: Path, tmp_path: Path) -> None:
    checkpoint(tiny_base, tmp_path / "t", 10)
    with pytest.raises(UserError, match=fault):
        once(tmp_path / "t", **more)
