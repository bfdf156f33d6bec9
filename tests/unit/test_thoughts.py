"""Of a request that is thought about the engine gets two: which, in what order, and what of them is kept."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darumeru.errors import DarumeruError
from darumeru.inference.asking import answer_tokens, ask, longest_input, requests_sha256
from darumeru.record.run import Journal
from darumeru.requests import Answer, Request, Thinking

END = 9
WORDS = {1: "раз ", 2: "два ", 3: "три ", END: "</t>"}
TOKENIZER = SimpleNamespace(decode=lambda ids, **_: "".join(WORDS.get(i, "?") for i in ids))


class Scripted:
    """An engine that answers as it is told, and remembers what it was asked."""

    interleaves = False
    follows = False
    thinks = False
    tokenizer = TOKENIZER

    def __init__(self, **answers: Answer) -> None:
        self.script = answers
        self.checked: set[str] = set()

    def check_kinds(self, kinds: set[Any]) -> None:
        self.checked |= kinds
        self.asked: list[Request] = []

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        for request in requests:
            if request.id not in done:
                self.asked.append(request)
                yield [self.script[request.id.replace("/", "_").replace("#", "_")]]


class Following(Scripted):
    """One that asks itself what follows an answer."""

    follows = True

    def answers(  # type: ignore[override]
        self, requests: Sequence[Request], done: Container[str] = (), follow: Any = None
    ) -> Iterator[list[Answer]]:
        for batch in super().answers(requests, done):
            yield batch
            if follow and (behind := follow(batch[0])) is not None:
                yield from super().answers([behind])


def asking(kind: Any, **more: Any) -> Request:
    return Request("t/0/0", kind, (1, 2, 3), "…", thinking=Thinking(20, END, (4, 5), "</t>:"), **more)


@pytest.mark.parametrize("kind", [Scripted, Following])
def test_a_choice_is_asked_behind_the_thought(kind: Any, tmp_path: Path) -> None:
    request = asking("choose", labels=(((1,),), ((2,),)))
    engine: Any = kind(
        t_0_0_thought=Answer("t/0/0#thought", text="раз два </t>", tokens=(1, 2, END), finish="stop"),
        t_0_0=Answer("t/0/0", logprobs=(-1.0, -2.0)),
    )
    journal = Journal(tmp_path / "journal.jsonl")
    told: list[tuple[int, int]] = []
    faults, _ = ask(engine, [request], journal, lambda done, total: told.append((done, total)))
    assert engine.checked == {"choose"}  # before the thought, which is generated
    thought, choice = engine.asked
    assert (thought.kind, thought.prompt, thought.max_tokens, thought.stop) == ("generate", (1, 2, 3), 20, END)
    assert (choice.kind, choice.prompt, choice.labels) == ("choose", (1, 2, 3, 1, 2, END, 4, 5), request.labels)
    assert faults == {}
    answer = journal.answers["t/0/0"]
    assert (answer.logprobs, answer.thought, answer.thought_tokens) == ((-1.0, -2.0), "раз два", (1, 2, END))
    assert not answer.unfinished
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert Journal(journal.path).answers == journal.answers, "as a process finds it that goes on"


def test_an_engine_that_follows_is_asked_again_only_for_what_an_earlier_process_thought(tmp_path: Path) -> None:
    requests = [replace(asking("generate", max_tokens=7), id=f"t/{n}/0") for n in range(2)]
    thought = {f"t_{n}_0_thought": Answer(f"t/{n}/0#thought", tokens=(n, END), finish="stop") for n in range(2)}
    said = {f"t_{n}_0": Answer(f"t/{n}/0", text="раз", tokens=(1,), finish="stop") for n in range(2)}
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append([thought["t_0_0_thought"]], 0.0, False)
    engine: Any = Following(**thought, **said)
    ask(engine, requests, journal)
    assert [r.id for r in engine.asked] == ["t/1/0#thought", "t/1/0", "t/0/0"]
    assert [journal.answers[f"t/{n}/0"].thought_tokens for n in range(2)] == [(0, END), (1, END)]


def test_stop_strings_are_the_answers_own(tmp_path: Path) -> None:
    request = asking("generate", max_tokens=7, until=("два",))
    engine: Any = Scripted(
        t_0_0_thought=Answer("t/0/0#thought", text="два </t>", tokens=(2, END), finish="stop"),
        t_0_0=Answer("t/0/0", text="раз", tokens=(1,), finish="stop"),
    )
    ask(engine, [request], Journal(tmp_path / "journal.jsonl"))
    thought, said = engine.asked
    assert (thought.until, thought.max_tokens) == ((), 20)
    assert (said.until, said.max_tokens, said.stop) == (("два",), 7, None)


@pytest.mark.parametrize(("tokens", "finish"), [((1,) * 20, "length"), ((1, 2), "stop")])
def test_a_thought_without_end_is_followed_by_no_question(tokens: Any, finish: Any, tmp_path: Path) -> None:
    engine: Any = Scripted(t_0_0_thought=Answer("t/0/0#thought", text="…", tokens=tokens, finish=finish))
    journal = Journal(tmp_path / "journal.jsonl")
    ask(engine, [asking("generate", max_tokens=7)], journal)
    answer = journal.answers["t/0/0"]
    assert (answer.unfinished, answer.text, answer.tokens, answer.thought_tokens) == (True, "", (), tokens)
    ask(Scripted(), [asking("generate", max_tokens=7)], journal)  # type: ignore[arg-type] # asked nothing again


def test_a_thought_that_fails_is_a_fault_of_its_request(tmp_path: Path) -> None:
    engine: Any = Scripted(t_0_0_thought=Answer("t/0/0#thought", error="out of memory"))
    journal = Journal(tmp_path / "journal.jsonl")
    faults, _ = ask(engine, [asking("choose", labels=(((1,),), ((2,),)))], journal)
    assert faults == {"t/0/0": "out of memory"}
    assert journal.answers == {}


def test_an_engine_that_forgets_a_thought_is_told_on(tmp_path: Path) -> None:
    class Silent(Scripted):
        def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
            yield from ()

    silent: Any = Silent()
    with pytest.raises(DarumeruError, match="left 1 requests unanswered, the first is 't/0/0'"):
        ask(silent, [asking("choose", labels=(((1,),), ((2,),)))], Journal(tmp_path / "journal.jsonl"))


def test_the_engine_is_loaded_for_prompt_thought_and_answer() -> None:
    request = asking("choose", labels=(((1,),), ((2, 3),)))
    assert answer_tokens(request) == 20 + 2 + 2, "budget, what follows the thought, the longer label"
    assert longest_input([request]) == 3 + 24


def test_the_fingerprint_tells_how_is_thought_and_leaves_other_requests_as_they_were() -> None:
    def of(thinking: Thinking | None) -> str:
        return requests_sha256(
            [Request("t/0/0", "generate", (1, 2), "…", max_tokens=5, until=("\n",), thinking=thinking)]
        )

    # SHA-256 of '[["t/0/0", "generate", [1, 2], [], [], 5, ["\n"]]]', as before there was thinking.
    assert of(None) == "ed596a03216e2817d134f71c8e55b69ea9911a96ae0aa107b5c3f879dc10638f"
    ways = [
        of(Thinking(20, END, (4,))),
        of(Thinking(21, END, (4,))),
        of(Thinking(20, 8, (4,))),
        of(Thinking(20, END, ())),
    ]
    assert len({of(None), *ways}) == 5
    assert of(Thinking(20, END, (4,), "</t>")) == ways[0], "the text says nothing new"


def test_an_engine_that_gives_thought_and_answer_at_once_gets_the_request_as_it_is(tmp_path: Path) -> None:
    class AtOnce(Scripted):
        thinks = True

    request = asking("generate", max_tokens=5)
    whole = Answer("t/0/0", text="три ", tokens=(3,), finish="stop", thought="раз", thought_tokens=(1, END))
    engine: Any = AtOnce(t_0_0=whole)
    told: list[tuple[int, int]] = []
    journal = Journal(tmp_path / "journal.jsonl")
    assert ask(engine, [request], journal, lambda done, total: told.append((done, total)))[0] == {}
    assert engine.asked == [request]
    assert journal.answers == {"t/0/0": whole}
    assert told[-1][0] == told[-1][1]


def test_a_thought_and_its_answer_may_come_together(tmp_path: Path) -> None:
    class Together(Scripted):
        follows = True

        def answers(  # type: ignore[override]
            self, requests: Sequence[Request], done: Container[str] = (), follow: Any = None
        ) -> Iterator[list[Answer]]:
            if requests[0].id not in done:
                thought = self.script["t_0_0_thought"]
                assert follow(thought) is not None
                yield [thought, self.script["t_0_0"]]

    engine: Any = Together(
        t_0_0_thought=Answer("t/0/0#thought", text="раз </t>", tokens=(1, END), finish="stop"),
        t_0_0=Answer("t/0/0", text="три ", tokens=(3,), finish="stop"),
    )
    journal = Journal(tmp_path / "journal.jsonl")
    ask(engine, [asking("generate", max_tokens=5)], journal)
    assert (journal.answers["t/0/0"].text, journal.answers["t/0/0"].thought_tokens) == ("три ", (1, END))
