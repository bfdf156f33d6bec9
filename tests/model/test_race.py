"""Races: verdicts, records, resumed and reused answers, models that drop out, and what is refused. Answers are made up."""

import json
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from darumeru.cli import app
from darumeru.errors import DarumeruError, UserError
from darumeru.evaluation import Plan, execute, prepare, settings_of
from darumeru.leaderboard.load import read_run
from darumeru.race import Goal, Race, race, run_until
from darumeru.race.contestants import Contestant, Recorded, live
from darumeru.race.record import write
from darumeru.race.start import contestants_of, race_models
from darumeru.record.run import find_runs
from darumeru.requests import Answer, Request
from support.tiny import KnowingEngine, make_model

TASKS = ("parus", "rcb", "use", "mmlu_ru", "cp_sent_ru")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("racers")
    return [make_model(folder / name, chat=True, seed=i) for i, name in enumerate(("good", "bad", "worse"))]


def plan_of(model: Path, **more: Any) -> Plan:
    return prepare(settings_of(**{"model": str(model), "data": "mini", "tasks": TASKS, "engine": "hf", **more}))


def knowing(spoil: float) -> Any:
    return lambda plan: KnowingEngine(plan, spoil=spoil)


def raced(stack: ExitStack, models: Sequence[Path], spoils: Sequence[float], output: Path) -> list[Contestant]:
    return [stack.enter_context(live(plan_of(m), output, knowing(s))) for m, s in zip(models, spoils, strict=True)]


def test_a_clear_difference_is_decided_early_and_the_runs_go_on_from_there(models: list[Path], tmp_path: Path) -> None:
    with ExitStack() as stack:
        contestants = raced(stack, models[:2], (0.0, 0.9), tmp_path)
        found = race(contestants)
        folder = write(found, contestants, 0, tmp_path)
    assert found.pairs[0].verdict == "first"
    assert 0 < found.pairs[0].low < found.pairs[0].high <= 1
    assert found.documents < found.of
    assert found.scores is None
    low, high = found.intervals["good"]
    assert low < 1.0 == high, "it knows everything"
    assert {p.name for p in folder.iterdir()} >= {
        "header.json",
        "looks.jsonl",
        "result.json",
        "race.svg",
        "manifest.json",
    }
    looks = [json.loads(line) for line in (folder / "looks.jsonl").read_text().splitlines()]
    assert [look["documents"] for look in looks][-1] == found.documents
    # Both runs are there, unfinished; a race is no run.
    runs = find_runs(tmp_path)
    assert len(runs) == 2
    assert not any(run.complete for run in runs)
    # A later run asks only what is missing.
    plan = plan_of(models[0])
    engine = KnowingEngine(plan)
    run = execute(plan, tmp_path, open_engine=lambda plan: engine)
    assert run.complete
    assert 0 < len(engine.asked) < len(plan.requests)


def test_at_the_end_the_scores_are_those_of_the_full_runs(models: list[Path], tmp_path: Path) -> None:
    # Without rcb, whose score is not accuracy alone, a race's scores are those of the suite.
    tasks = ("parus", "use", "mmlu_ru", "cp_sent_ru")
    with ExitStack() as stack:
        both = [stack.enter_context(live(plan_of(m, tasks=tasks), tmp_path, knowing(0.5))) for m in models[:2]]
        found = race(both, margin=0.001)
    pair = found.pairs[0]
    assert pair.verdict == "undecided"
    assert found.documents == found.of
    assert pair.low == pytest.approx(pair.high)
    for model, score in zip(models[:2], (found.scores or {}).values(), strict=True):
        full = execute(plan_of(model, tasks=tasks), tmp_path, open_engine=_never)
        assert full.scores.suite.value == pytest.approx(score)


def _never(plan: Plan) -> KnowingEngine:
    engine = KnowingEngine(plan)

    def refuse(requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        assert all(r.id in done for r in requests)
        return iter(())

    engine.answers = refuse  # type: ignore[method-assign]
    return engine


def test_equal_within_a_margin_and_three_models(models: list[Path], tmp_path: Path) -> None:
    with ExitStack() as stack:
        found = race(raced(stack, models, (0.0, 0.0, 1.0), tmp_path), margin=0.3)
    verdicts = {(p.first, p.second): p.verdict for p in found.pairs}
    assert verdicts["good", "worse"] == "first"
    assert verdicts["good", "bad"] == "equal"
    assert found.left_out == {"rcb": ["f1_macro"]}


class DyingEngine(KnowingEngine):
    """Breaks after some answers."""

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        for batch in super().answers(requests, done):
            if len(self.asked) > 60:
                raise DarumeruError("the engine died")
            yield batch


def test_a_killed_race_goes_on_and_ends_as_if_nothing_had_happened(models: list[Path], tmp_path: Path) -> None:
    def ended(output: Path) -> tuple[Race, int]:
        with ExitStack() as stack:
            engines: list[KnowingEngine] = []

            def opened(plan: Plan) -> KnowingEngine:
                engines.append(KnowingEngine(plan, spoil=0.1 if "good" in plan.model.name else 0.4))
                return engines[-1]

            return race([stack.enter_context(live(plan_of(m), output, opened)) for m in models[:2]]), sum(
                len(e.asked) for e in engines
            )

    whole, asked = ended(tmp_path / "whole")
    dying = lambda plan: DyingEngine(plan, spoil=0.1 if "good" in plan.model.name else 0.4)  # noqa: E731
    with pytest.raises(DarumeruError, match="died"), ExitStack() as stack:
        race([stack.enter_context(live(plan_of(m), tmp_path / "killed", dying)) for m in models[:2]])
    again, asked_again = ended(tmp_path / "killed")
    assert again.to_json() == whole.to_json()
    assert again.looks == whole.looks
    assert 0 < asked_again < asked


def test_finished_runs_race_without_a_model_and_as_the_models_did(models: list[Path], tmp_path: Path) -> None:
    runs = [execute(plan_of(m), tmp_path, open_engine=knowing(s)) for m, s in zip(models[:2], (0.0, 0.9), strict=True)]
    found = race_models([str(run.path) for run in runs], output=tmp_path)
    assert found.pairs[0].verdict == "first"
    assert found.path is not None
    with live(plan_of(models[1]), tmp_path / "other", knowing(0.9)) as other:
        mixed = race([Recorded.of(runs[0], TASKS, other.tasks), other])
    assert mixed.pairs[0].verdict == "first"


def test_until_a_score_is_known_well_enough(models: list[Path], tmp_path: Path) -> None:
    plan = plan_of(models[0])
    goal = Goal.of("micro_avg +- 0.06")
    with live(plan, tmp_path, knowing(0.2)) as contestant:
        found = run_until(contestant, goal, goal.tasks(plan.suite))
    assert found.met
    assert found.documents < found.of
    assert (found.high - found.low) / 2 <= 0.06
    stated = json.loads((found.run / "until.json").read_text())
    assert stated["goal"] == "micro_avg ± 0.06"
    # A board does not take it for a result.
    problem = read_run(found.run)
    assert "Only a part of its documents" in getattr(problem, "reason", "")
    full = execute(plan, tmp_path, open_engine=knowing(0.2))
    accuracy = [
        full.scores.tasks[t].metrics["acc" if t == "rcb" else full.scores.tasks[t].primary[0]].value for t in TASKS
    ]
    assert found.low <= float(np.mean([a for a in accuracy if a is not None])) <= found.high


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("micro_avg", "is not understood"),
        ("micro_avg ± 0", "is not understood"),
        ("micro_avg ± 2", "is not understood"),
        ("± 0.01", "is not understood"),
    ],
)
def test_a_goal_that_is_none(text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        Goal.of(text)


def test_a_goal_of_another_suite(models: list[Path]) -> None:
    with pytest.raises(UserError, match="Unknown score of this suite 'rucola'"):
        Goal.of("rucola +- 0.02").tasks(plan_of(models[0]).suite)


def test_what_cannot_race(models: list[Path], tmp_path: Path) -> None:
    good, bad = (execute(plan_of(m), tmp_path, open_engine=knowing(0.1)).path for m in models[:2])
    wording = tmp_path / "w.yaml"
    wording.write_text("rcb: {gen_prefix: 'Так:'}", encoding="utf-8")
    worded = execute(plan_of(models[1], wording=wording), tmp_path, open_engine=knowing(0.1)).path
    limited = execute(plan_of(models[1], limit=10), tmp_path, open_engine=knowing(0.1)).path
    fewer = execute(plan_of(models[1], tasks=TASKS[:2]), tmp_path, open_engine=knowing(0.1)).path
    for names, more, fault in (
        ([good], {}, "needs two models"),
        ([good, good], {}, "named twice"),
        ([good, worded], {}, "rcb was worded differently"),
        ([good, limited], {}, "has other documents"),
        ([good, fewer], {}, "Race those that both have: --tasks"),
        ([good, bad], {"margin": -0.1}, "--margin -0.1 is not possible"),
        ([good, bad], {"margin": 1.0}, "--margin 1 is not possible"),
        ([good, bad], {"alpha": 0.0}, "--alpha 0 is not possible"),
        ([good, bad], {"alpha": 1.0}, "--alpha 1 is not possible"),
        ([good, bad], {"engine": "api"}, "asks one server for one model"),
    ):
        with pytest.raises(UserError, match=fault):
            race_models([str(n) for n in names], output=tmp_path, **more)
    unfinished = tmp_path / "unfinished"
    with live(plan_of(models[2]), unfinished, knowing(0.1)) as contestant:
        contestant.answer({"parus": [0]})
    with (
        pytest.raises(UserError, match=r"is not finished\. Name its model"),
        contestants_of([str(good), str(contestant.run.path)], tmp_path, {}),
    ):
        pass


def test_the_command(models: list[Path], tmp_path: Path) -> None:
    runs = [
        str(execute(plan_of(m), tmp_path, open_engine=knowing(s)).path)
        for m, s in zip(models[:2], (0.0, 0.9), strict=True)
    ]
    done = CliRunner().invoke(app, ["race", *runs, "--output", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["pairs"][0]["verdict"] == "first"
    assert Path(said["race"], "manifest.json").is_file()
    done = CliRunner().invoke(app, ["race", *runs, "--output", str(tmp_path), "--margin", "7"])
    assert done.exit_code == 2
    # With a real (random) model: one task, asked until its score is known.
    args = [
        "run",
        "--model",
        str(models[0]),
        "--data",
        "mini",
        "--tasks",
        "parus",
        "--engine",
        "hf",
        "--output",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, [*args, "--until", "parus +- 0.2", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["low"] <= said["estimate"] <= said["high"]


def test_a_task_whose_data_cannot_be_had_is_named(models: list[Path], tmp_path: Path) -> None:
    plan = plan_of(models[0])
    tasks = {name: task for name, task in plan.tasks.items() if name != "rcb"}
    lacking = replace(plan, tasks=tasks, missing={"rcb": "the hub cannot be reached"})
    with pytest.raises(
        UserError,
        match=r"rcb counts in the mean .* \(the hub cannot be reached\).*--tasks mmlu_ru,parus,use,cp_sent_ru",
    ):
        live(lacking, tmp_path, knowing(0.0)).__enter__()
