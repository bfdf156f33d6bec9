"""Runs by several workers: the record of one engine, whatever happens to the workers. The workers are threads here."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from darumeru.evaluation import execute, prepare, settings_of
from darumeru.evaluation.plan import Plan
from darumeru.evaluation.several import Outcome, evaluate_each, opened_by
from darumeru.record.run import Journal, Run
from darumeru.requests import Answer, Request
from darumeru.workers import Pool
from darumeru.workers.worker import Worker
from support.runs import comparable, samples
from support.workers import Counting, Threads, pool_of

ASKED: dict[str, Any] = {
    "engine": "hf", "device": "cpu", "dtype": "float32", "data": "mini", "tasks": ("parus", "cp_sent_ru", "rucola", "multiq"),
    "num_fewshot": 0, "limit": 12,
}  # fmt: skip


@pytest.fixture(scope="module")
def plan(tiny_chat: Path) -> Plan:
    return prepare(settings_of(model=str(tiny_chat), **ASKED))


@pytest.fixture(scope="module")
def alone(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run by one engine in this process."""
    return execute(plan, tmp_path_factory.mktemp("alone"))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each answer came into a journal."""
    found: Counter[str] = Counter()
    append = Journal.append

    def spy(self: Journal, batch: Sequence[Answer], *rest: Any) -> None:
        found.update(a.id for a in batch)
        append(self, batch, *rest)

    monkeypatch.setattr(Journal, "append", spy)
    return found


def by(pool: Pool, plan: Plan, output: Path) -> Run:
    return execute(plan, output, open_engine=opened_by(pool))


def told(run: Run) -> dict[str, list[Any]]:
    """Prompts, choices and texts of a run; log-probabilities without what other batches change in them."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 3)
        if isinstance(value, dict):
            return {k: rounded(v) for k, v in value.items()}
        return [rounded(v) for v in value] if isinstance(value, list | tuple) else value

    return {task: [rounded(row.to_json()) for row in rows] for task, rows in samples(run).items()}


def test_the_same_record_by_one_engine_and_by_three_workers(
    plan: Plan, alone: Run, tmp_path: Path, stored: Counter[str]
) -> None:
    with pool_of(Threads(3)) as pool:
        run = by(pool, plan, tmp_path)
    assert run.path.name == alone.path.name, "where it is computed is no part of a run's identity"
    assert told(run) == told(alone)
    assert comparable(run.scores)["suite"].value == pytest.approx(comparable(alone.scores)["suite"].value)
    assert set(stored.values()) == {1}
    assert run.header.environment["workers"] == 3
    assert run.header.environment["engine"] == "hf"


def test_workers_that_die_cost_only_what_they_had_not_answered(
    plan: Plan, alone: Run, tmp_path: Path, stored: Counter[str]
) -> None:
    deaths = []

    def worker(number: int) -> Worker:
        def before(window: Sequence[Request]) -> None:
            if number < 4 and len(window) > 1:
                deaths.append(number)
                raise RuntimeError("CUDA error: device-side assert triggered")

        return Counting(before)

    with pool_of(Threads(2, worker)) as pool:
        run = by(pool, plan, tmp_path)
    assert len(deaths) >= 2
    assert told(run) == told(alone)
    assert set(stored.values()) == {1}


def test_a_request_that_kills_three_workers_fails_its_task_alone(plan: Plan, alone: Run, tmp_path: Path) -> None:
    poison = next(r.id for r in plan.requests if r.id.startswith("rucola/"))
    deaths = []

    def before(window: Sequence[Request]) -> None:
        if any(r.id == poison for r in window):
            deaths.append(len(window))
            raise RuntimeError("killed")

    with pool_of(Threads(2, lambda number: Counting(before))) as pool:
        run = by(pool, plan, tmp_path)
    assert len(deaths) == 3
    assert deaths[-1] == 1
    assert set(run.scores.failed) == {"rucola"}
    assert poison in run.scores.failed["rucola"]
    assert not run.complete
    assert run.scores.tasks["parus"].score == alone.scores.tasks["parus"].score


def test_a_killed_driver_resumes(plan: Plan, alone: Run, tmp_path: Path, stored: Counter[str]) -> None:
    class Killed(BaseException):
        pass

    def killed(done: int, total: int) -> None:
        if len(stored) > 10:
            raise Killed

    with pool_of(Threads(2)) as pool, pytest.raises(Killed):
        execute(plan, tmp_path, killed, opened_by(pool))
    first = set(stored)
    assert 10 < len(first) < len(plan.requests)
    with pool_of(Threads(2)) as pool:
        run = by(pool, plan, tmp_path)
    assert set(stored.values()) == {1}, "a stored answer was computed again"
    assert told(run) == told(alone)


@pytest.fixture
def models(tiny_chat: Path, tiny_base: Path, tmp_path: Path) -> list[Path]:
    """Two models, and one between them whose weights are broken."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_chat.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "hidden_size": 48}))
    return [tiny_chat, broken, tiny_base]


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_a_model_that_fails_does_not_stop_the_others(workers: int, models: list[Path], tmp_path: Path) -> None:
    each = [settings_of(model=str(m), **{**ASKED, "tasks": ("parus",)}) for m in models]
    cluster = Threads(workers, lambda number: Counting())

    def show(plan: Plan) -> Any:
        return lambda done, total: None

    def outcomes() -> list[Outcome]:
        if not workers:
            return list(evaluate_each(each, tmp_path / "runs", show))
        with pool_of(cluster) as pool:
            return list(evaluate_each(each, tmp_path / "runs", show, pool))

    found = {o.settings.model: o for o in outcomes()}
    assert [bool(found[str(m)].fault) for m in models] == [False, True, False]
    assert "does not fit its own config.json" in found[str(models[1])].line
    good = [found[str(m)].run for m in (models[0], models[2])]
    assert all(run is not None and run.complete for run in good)
    if workers == 1:
        loads = [name for remote in cluster.started for name in remote.worker.loads]  # type: ignore[attr-defined]
        assert len(loads) == 3, "a model stays loaded until it is done"


def test_a_model_that_thinks_is_asked_twice_by_workers_too(thinking_model: Path, tmp_path: Path) -> None:
    asked = {**ASKED, "tasks": ("parus", "multiq"), "limit": 4, "thinking": "on", "thinking_budget": 40}
    plan = prepare(settings_of(model=str(thinking_model), **asked))
    one = execute(plan, tmp_path / "one")
    with pool_of(Threads(2)) as pool:
        two = by(pool, plan, tmp_path / "two")
    assert told(one) == told(two)
    assert any(r.answer.thought_tokens for row in one.samples("parus") for r in row.requests)
