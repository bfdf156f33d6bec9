"""Requests of a model among workers: windows that share beginnings, and what happens when a worker dies."""

import pickle
import random

import pytest

from darumeru.requests import Answer, PackedTokens, Request
from darumeru.workers.messages import bare
from darumeru.workers.probe import differing
from darumeru.workers.work import DEATHS, LEAST, MOST, SUSPECTS, Work, share_of


def requests(count: int, kind: str = "choose", prompt_tokens: int = 20) -> list[Request]:
    return [Request(f"t/{i}/0", kind, (i % 7, *range(prompt_tokens)), "text", max_tokens=8) for i in range(count)]  # type: ignore[arg-type]


def work_of(asked: list[Request]) -> Work:
    work = Work()
    work.ask(asked)
    return work


def test_windows_hold_every_request_once_and_grow_smaller() -> None:
    asked = requests(5000)
    random.Random(0).shuffle(asked)
    work, sizes, seen = work_of(asked), [], []
    while window := work.window(workers=4):
        sizes.append(len(window))
        seen += [r.id for r in window]
    assert sorted(seen) == sorted(r.id for r in asked)
    assert max(sizes) == sizes[0] == MOST
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes[:-1]) >= LEAST
    assert not len(work)


def test_a_window_begins_alike_and_long_answers_come_first() -> None:
    short = [Request(f"a/{i}/0", "choose", (i % 7, 1, 2), "") for i in range(70)]
    long = [Request(f"b/{i}/0", "generate", (9, i), "", max_tokens=10 * (i % 2 + 1)) for i in range(20)]
    work = work_of([*short, *long])
    order = []
    while window := work.window(workers=1):
        order += window
    assert [r.max_tokens for r in order[:20]] == [20] * 10 + [10] * 10
    first = [r.prompt[0] for r in order[20:]]
    assert first == sorted(first)


def test_what_a_dead_worker_had_is_handed_out_again_and_only_that() -> None:
    work = work_of(requests(100))
    window = work.window(workers=1)
    rest = len(work)
    answered, left = window[:10], window[10:]
    assert work.lost(left, "died") == []
    again = []
    while work.suspects:
        part = work.window(workers=1)
        assert len(part) <= SUSPECTS
        again += part
    assert {r.id for r in again} == {r.id for r in left}
    assert not {r.id for r in again} & {r.id for r in answered}
    assert len(work) == rest


def test_a_request_that_kills_three_workers_is_named_and_the_others_are_answered() -> None:
    asked = requests(100)
    work, answered, deaths, faults = work_of(asked), set(), 0, []
    while window := work.window(workers=2):
        if any(r.id == "t/42/0" for r in window):
            deaths += 1
            faults += work.lost(window, "killed by SIGKILL")
        else:
            answered |= {r.id for r in window}
    assert deaths == DEATHS == 3
    assert [f.id for f in faults] == ["t/42/0"]
    assert "t/42/0' ended 3 workers" in faults[0].error
    assert "SIGKILL" in faults[0].error
    assert answered == {r.id for r in asked} - {"t/42/0"}


def test_a_node_that_is_gone_is_no_requests_fault() -> None:
    work = work_of(requests(1))
    for _ in range(10):
        assert work.lost(work.window(workers=1), "") == []
    assert [r.id for r in work.window(workers=1)] == ["t/0/0"]


def test_innocent_requests_outlive_many_deaths() -> None:
    """Deaths from outside: nothing is blamed that was never alone with a dying worker."""
    work, draw, answered = work_of(requests(300)), random.Random(1), set()
    while window := work.window(workers=2):
        if len(window) > 1 and draw.random() < 0.4:
            assert work.lost(window, "killed") == []
        else:
            answered |= {r.id for r in window}
    assert len(answered) == 300


def test_models_share_workers() -> None:
    assert [share_of(8, models) for models in (1, 2, 3, 8, 20)] == [8, 4, 3, 1, 1]


def test_requests_pass_between_processes_and_share_their_beginnings() -> None:
    head = PackedTokens.of(range(1000)).tail
    asked = [
        Request(
            f"t/{i}/0", "choose", PackedTokens.of([i], head), "words", labels=(((5,), (6, 7)),), messages=({"a": "b"},)
        )  # type: ignore[arg-type]
        for i in range(50)
    ]
    sent = pickle.dumps([bare(r) for r in asked])
    assert len(sent) < 50 * 400 + len(head)
    for before, after in zip(asked, pickle.loads(sent), strict=True):  # noqa: S301 — our own bytes
        assert (after.id, after.prompt, after.labels) == (before.id, before.prompt, before.labels)
        assert after.text == ""


@pytest.mark.parametrize(
    ("other", "dtype", "agrees"),
    [(-32.01, "float32", True), (-33.0, "float32", False), (-33.0, "bfloat16", True), (-40.0, "bfloat16", False),
     (float("nan"), "bfloat16", False)],
)  # fmt: skip
def test_the_probe_tells_noise_from_another_model(other: float, dtype: str, agrees: bool) -> None:
    probe = [Request("probe/0", "likelihood", (1, 2), "", continuations=(tuple(range(32)),))]
    found = differing(probe, [Answer("probe/0", logprobs=(-32.0,))], [Answer("probe/0", logprobs=(other,))], dtype)
    assert (found is None) == agrees
