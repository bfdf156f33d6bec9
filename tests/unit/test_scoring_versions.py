"""A metric that gives other numbers has another version, so that a record says by which rules it was scored."""

import json
from collections.abc import Sequence

import pytest

from darumeru.data.bundle import Row
from darumeru.requests import Answer
from darumeru.task import Score
from darumeru.task.suite import Catalogue
from support.scoring_pins import PINS, all_tasks, fingerprint_of

PINNED = json.loads(PINS.read_text(encoding="utf-8"))
TASKS = all_tasks()
REWRITE = "then write the pins anew: PYTHONPATH=.:tests python tests/support/scoring_pins.py"


def test_every_task_is_pinned() -> None:
    assert sorted(PINNED) == sorted(TASKS), REWRITE


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_changed_metric_has_a_higher_version(name: str) -> None:
    task, pin = TASKS[name], PINNED[name]
    if fingerprint_of(task) != pin["sha256"]:
        assert pin["scoring"] < task.SCORING, f"raise the scoring version of {name}; {REWRITE}"
        pytest.fail(f"the scoring version of {name} is raised; {REWRITE}")
    assert pin["scoring"] == task.SCORING, f"the metrics of {name} did not change, its scoring version did; {REWRITE}"


def test_a_changed_metric_is_noticed() -> None:
    task = Catalogue().load(["parus"], "mini")["parus"]
    whole = task.score

    def halved(doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        score = whole(doc, answers, reference_tokens)
        return Score({k: v / 2 for k, v in score.metrics.items()}, gold=score.gold, pred=score.pred)

    task.score = halved  # type: ignore[method-assign]
    assert fingerprint_of(task) != PINNED["parus"]["sha256"]
