"""A model that thinks, on both engines and killed: the same tokens thought and said, and nothing thought twice."""

import os
import signal
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from darumeru.evaluation import Plan, execute, prepare
from darumeru.record.run import Journal, Run, load_run
from darumeru.settings import settings_of
from support.forked import darumeru, fork
from support.real import needs_vllm
from support.runs import comparable, samples
from support.thinking import BUDGET, LONG, QUESTIONS, make_tasks

WAYS: dict[str, dict[str, Any]] = {
    "off": {},
    "on": {"thinking": "on", "thinking_budget": 100},
    "cut": {"thinking": "on", "thinking_budget": BUDGET},
}


def spied(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """For each call of an engine the ids that it answers."""
    calls: list[list[str]] = []
    answers = engine.answers

    def spy(*args: Any, **more: Any) -> Any:
        calls.append([])
        for batch in answers(*args, **more):
            calls[-1] += [a.id for a in batch]
            yield batch

    monkeypatch.setattr(engine, "answers", spy)
    return calls


@pytest.mark.xdist_group("vllm")
@needs_vllm
def test_both_engines_think_and_say_the_same_tokens(
    thinking_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    zoo = make_tasks(tmp_path / "zoo")

    def runs(name: str) -> dict[str, Run]:
        """The three ways, computed by one loaded engine."""
        plans = {
            way: prepare(settings_of(model=str(thinking_model), engine=name, **asked, **zoo))
            for way, asked in WAYS.items()
        }
        with plans["on"].opened.load(512) as engine:
            calls.append(spied(engine, monkeypatch))

            @contextmanager
            def opened(_: Plan) -> Any:
                yield engine

            open_engine: Callable[[Plan], Any] = opened
            return {way: execute(plan, tmp_path / name, open_engine=open_engine) for way, plan in plans.items()}

    calls: list[list[list[str]]] = []
    want, got = runs("hf"), runs("vllm")
    apart, together = ([0 < sum("#thought" in i for i in ids) < len(ids) for ids in c] for c in calls)
    assert not any(apart), "hf is asked for the answers when all is thought"
    assert sum(together) == 2, "vLLM answers while it thinks about others"
    for way in WAYS:
        for task in ("legs", "legs_said"):
            for a, b in zip(want[way].samples(task), got[way].samples(task), strict=True):
                x, y = a.requests[0].answer, b.requests[0].answer
                where = f"{way}, {task}, {a.doc['question']}"
                assert y.logprobs == pytest.approx(x.logprobs, abs=1e-3), where
                assert y.model_dump(exclude={"logprobs"}) == x.model_dump(exclude={"logprobs"}), where
                assert bool(y.thought_tokens) == (way != "off"), where
                assert (b.pred, b.score) == (a.pred, a.score), where
                if a.doc["question"] == LONG:
                    assert y.unfinished == (way == "cut"), where


def noting(log: Path, kill: bool, *command: object) -> None:
    """Be a command that notes which answers it keeps, killed when the first choice is to be kept if `kill`."""
    append = Journal.append

    def noted(self: Journal, batch: Any, *rest: Any) -> None:
        if kill and any(a.logprobs for a in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        with log.open("a") as file:
            file.write("".join(a.id + "\n" for a in batch))
        append(self, batch, *rest)

    Journal.append = noted  # type: ignore[method-assign]
    darumeru(*command)


@pytest.mark.xdist_group("forked")
def test_killed_between_thought_and_choice_it_resumes(thinking_model: Path, tmp_path: Path) -> None:
    """A real process, killed with SIGKILL when the first choice behind a thought is to be written down."""
    zoo = make_tasks(tmp_path / "zoo")
    command = [
        "run", "--model", str(thinking_model), "--data", zoo["data"], "--include-path", str(zoo["include_path"][0]),
        "--suite", "zoo", "--tasks", "legs", "--engine", "hf", "--dtype", "float32", "--device", "cpu", "--thinking", "on",
        "--thinking-budget", "100", "--model-args", "batch_tokens=300", "--output",
    ]  # fmt: skip
    log, said = tmp_path / "kept.txt", tmp_path / "said.txt"

    def run(folder: str, kill: bool) -> int | None:
        process = fork(noting, log, kill, *command, str(tmp_path / folder), said=said)
        process.join()
        return process.exitcode

    assert run("a", kill=True) == -signal.SIGKILL, said.read_text()
    stored = set(Journal(next((tmp_path / "a").glob("*/journal.jsonl"))).answers)
    thoughts = {f"legs/{i}/0#thought" for i in range(len(QUESTIONS))}
    unfinished = {f"legs/{QUESTIONS.index(q)}/0" for q in QUESTIONS[-1:]}
    assert stored == thoughts | unfinished
    os.truncate(log, 0)
    assert run("a", kill=False) == 0, said.read_text()
    computed = log.read_text(encoding="utf-8").split()
    assert sorted(computed) == sorted(f"legs/{i}/0" for i in range(len(QUESTIONS) - 1)), "the choices, and no thought"
    assert run("b", kill=False) == 0, said.read_text()
    resumed, whole = (load_run(next((tmp_path / x).iterdir())) for x in "ab")
    assert samples(resumed) == samples(whole)
    assert comparable(resumed.scores) == comparable(whole.scores)
