"""A model that thinks, trained here: off, on, cut; its thoughts are kept, counted, and not thought twice."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from darumeru.engines import Engine
from darumeru.errors import UserError
from darumeru.evaluation import Plan, evaluate, execute, prepare, rescore
from darumeru.evaluation.execute import open_planned
from darumeru.record.run import Journal, Run
from darumeru.record.sample import Asked
from darumeru.requests import Answer, Request
from darumeru.settings import settings_of
from support.runs import comparable, samples
from support.thinking import BUDGET, ENDLESS, LONG, QUESTIONS, SAID, make_tasks


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return make_tasks(tmp_path_factory.mktemp("zoo"))


@pytest.fixture(scope="module")
def thought(thinking_model: Path, zoo: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with thinking on, whose budget is too short for one thought."""
    return evaluate(
        thinking_model, output=tmp_path_factory.mktemp("on"), engine="hf", thinking="on", thinking_budget=BUDGET, **zoo
    )


def asked(run: Run, task: str) -> dict[str, Asked]:
    return {sample.doc["question"]: sample.requests[0] for sample in run.samples(task)}


def test_off_is_the_default_and_no_answer_is_thought_about(
    thinking_model: Path, zoo: dict[str, Any], tmp_path: Path
) -> None:
    run = evaluate(thinking_model, output=tmp_path, engine="hf", **zoo)
    assert run.header.thinking is not None
    assert (run.header.thinking.mode, run.header.thinking.template_args) == ("off", {"enable_thinking": False})
    said, chosen = asked(run, "legs_said"), {s.doc["question"]: s.pred for s in run.samples("legs")}
    for question, it in SAID.items():
        assert said[question].prompt == f"<|user|>{question}<|end|>\n<|assistant|><think></think>\n"
        assert (said[question].answer.text, chosen[question]) == (it.at_once, it.at_once)
        assert "thought" not in said[question].answer
    assert run.scores.tasks["legs_said"].metrics["right"].value == pytest.approx(2 / 7), "the beetle and the crab"
    assert "thought_tokens" not in run.scores.tasks["legs"], "a record of answers without thoughts is as it was"


def test_it_thinks_and_then_answers(thought: Run) -> None:
    said, chosen = asked(thought, "legs_said"), {s.doc["question"]: s for s in thought.samples("legs")}
    for question, it in SAID.items():
        if question == LONG:
            continue
        answer = said[question].answer
        assert said[question].prompt == f"<|user|>{question}<|end|>\n<|assistant|><think>"
        assert (answer.thought, answer.text, answer.tokens) == (it.thought, it.after, answer.tokens[:1])
        assert len(answer.thought_tokens) == len(it.thought) + 1, "a token a letter, and the end"
        assert said[question].after_thought == "</think>\n"
        choice = chosen[question]
        assert (choice.requests[0].answer.thought, choice.pred) == (it.thought, it.after)
        assert choice.requests[0].after_thought == "</think>\nОтвет:"
    result = thought.scores.tasks["legs_said"]
    assert result.metrics["right"].value == pytest.approx(5 / 7)
    # The thought counts for nothing but itself: one token is said to each of five questions of seven.
    assert result.metrics["len"].value == pytest.approx(5 / 7)
    assert result.generated_tokens == 5
    finished = sum(len(it.thought) + 1 for question, it in SAID.items() if question != LONG)
    assert result.thought_tokens == finished + BUDGET + len("ног")


@pytest.mark.parametrize("task", ["legs", "legs_said"])
def test_a_thought_that_does_not_end_is_an_empty_answer_and_counted(thought: Run, task: str) -> None:
    found = asked(thought, task)
    cut, ended = found[LONG].answer, found[ENDLESS].answer
    assert (cut.unfinished, cut.thought, len(cut.thought_tokens)) == (True, SAID[LONG].thought[:BUDGET].strip(), BUDGET)
    assert (ended.unfinished, ended.thought) == (True, "ног"), "the model ended its turn inside the thought"
    for answer in (cut, ended):
        assert not (answer.text or answer.tokens or answer.logprobs)
    result = thought.scores.tasks[task]
    assert (result.unfinished_thoughts, result.finished_documents, result.documents) == (2, 5, 7)
    assert result.score.value == pytest.approx(5 / 7)
    assert result.finished_score is not None
    assert result.finished_score.value == 1.0
    assert result.cut_answers == 0
    preds = {s.doc["question"]: s.pred for s in thought.samples("legs")}
    assert preds[LONG] == ""


def test_rescoring_changes_nothing(thought: Run, zoo: dict[str, Any]) -> None:
    before, rows = comparable(thought.scores), samples(thought)
    again = rescore(thought, zoo["include_path"])
    assert comparable(again.scores) == before
    assert samples(again) == rows


class Stopping:
    """An engine around another one, which fails with the first answer that follows a thought."""

    def __init__(self, engine: Engine, fails: bool) -> None:
        self._engine, self._fails = engine, fails
        self.asked: list[str] = []
        self.passes: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def __enter__(self) -> "Stopping":
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        self.passes.append([r.id for r in requests])
        self.asked += [r.id for r in requests if r.id not in done]
        if self._fails and len(self.passes) == 2:
            raise KeyboardInterrupt
        yield from self._engine.answers(requests, done)


def test_what_was_thought_is_not_thought_again(
    thinking_model: Path, zoo: dict[str, Any], thought: Run, tmp_path: Path
) -> None:
    settings = settings_of(
        model=str(thinking_model), engine="hf", thinking="on", thinking_budget=BUDGET, tasks=("legs",), **zoo
    )
    engines: list[Stopping] = []

    def opened(fails: bool) -> Any:
        def open_(plan: Plan) -> Any:
            engines.append(Stopping(open_planned(plan), fails))
            return engines[-1]

        return open_

    with pytest.raises(KeyboardInterrupt):
        execute(prepare(settings), tmp_path, open_engine=opened(True))
    journal = Journal(next(tmp_path.glob("*/journal.jsonl")))
    assert sum(id_.endswith("#thought") for id_ in journal.answers) == len(QUESTIONS)
    assert [id_ for id_ in journal.answers if not id_.endswith("#thought")] == ["legs/5/0", "legs/6/0"], "those cut"
    run = execute(prepare(settings), tmp_path, open_engine=opened(False))
    assert engines[1].asked == [f"legs/{i}/0" for i in range(5)], "five choices, and no thought"
    assert engines[1].passes == engines[0].passes, "batches do not depend on where a run stopped"
    assert list(run.samples("legs")) == list(thought.samples("legs"))


def test_budgets_and_modes_are_runs_of_their_own(thinking_model: Path, zoo: dict[str, Any]) -> None:
    def run_id(**settings: Any) -> str:
        from darumeru.evaluation.execute import run_of

        return str(
            run_of(prepare(settings_of(model=str(thinking_model), engine="hf", **settings, **zoo)), Path())[1]["id"]
        )

    ids = [
        run_id(),
        run_id(thinking="off"),
        run_id(thinking="on", thinking_budget=64),
        run_id(thinking="on", thinking_budget=65),
    ]
    assert ids[0] == ids[1], "auto is off where the template can switch"
    assert len(set(ids)) == 3


def test_what_cannot_be_thought_is_refused_before_anything_is_computed(
    thinking_model: Path, tiny_chat: Path, tiny_base: Path, zoo: dict[str, Any]
) -> None:
    def plan(model: Path, **settings: Any) -> Plan:
        return prepare(settings_of(model=str(model), engine="hf", **{"data": "mini", "tasks": ("rwsd",), **settings}))

    with pytest.raises(UserError, match=r"--thinking on is not possible: the chat template knows no thoughts\."):
        plan(tiny_chat, thinking="on")
    with pytest.raises(UserError, match=r"--thinking on needs a chat template, and none is used here\."):
        plan(tiny_base, thinking="on")
    with pytest.raises(UserError, match=r"--thinking-budget 512 leaves no room .* context of 512 tokens\."):
        plan(thinking_model, thinking="on", thinking_budget=512)
    with pytest.raises(UserError, match=r"holds 512 tokens, 497 of them for a thought, .* smaller --thinking-budget\."):
        plan(
            thinking_model,
            thinking="on",
            thinking_budget=490,
            **{k: zoo[k] for k in ("include_path", "data", "suite")},
            tasks=(),
        )
    with pytest.raises(UserError, match="'rwsd' asks for the likelihood of a given text, which is not thought about"):
        plan(thinking_model, thinking="on", thinking_budget=64, likelihood=True)
    with pytest.raises(UserError, match=r"--think-end 'кот' is 3 tokens of this model, and must be one"):
        plan(thinking_model, thinking="on", thinking_budget=64, think_end="кот")
    with pytest.raises(UserError, match=r"--thinking-budget belongs to a model that thinks: it needs --thinking on\."):
        plan(thinking_model, thinking_budget=64)
    with pytest.raises(UserError, match=r"Unknown --chat-template-args key .* 'enable_thought'.*enable_thinking"):
        plan(thinking_model, chat_template_args={"enable_thought": False})


def test_with_repeats_the_finished_ones_of_each_document_count(
    thinking_model: Path, zoo: dict[str, Any], tmp_path: Path
) -> None:
    """Thoughts are drawn anew in each repeat; hot as they are, some end in the budget and some do not."""
    run = evaluate(
        thinking_model, output=tmp_path, engine="hf", thinking="on", thinking_budget=BUDGET, temperature=1.5, repeats=3,
        tasks=("legs_said",), **zoo,
    )  # fmt: skip
    values, cut = [], 0
    for sample in run.samples("legs_said"):
        ended = [not r.answer.unfinished for r in sample.requests]
        right = [float(r.answer.text == sample.gold) for r in sample.requests]
        assert len({tuple(r.answer.thought_tokens) for r in sample.requests}) > 1, "each repeat is thought anew"
        assert sample.score["right"] == pytest.approx(sum(right) / 3)
        cut += ended.count(False)
        if any(ended):
            values.append(sum(r for r, e in zip(right, ended, strict=True) if e) / sum(ended))
    result = run.scores.tasks["legs_said"]
    assert 0 < cut == result.unfinished_thoughts < 3 * len(QUESTIONS)
    assert result.finished_documents == len(values)
    assert result.finished_score is not None
    assert result.finished_score.value == pytest.approx(sum(values) / len(values))
