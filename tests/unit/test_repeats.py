"""Drawn answers: what settings ask for, requests and seeds of repeats, scores of documents that were answered several times."""

import math
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from darumeru.errors import UserError
from darumeru.inference.asking import ask, requests_sha256
from darumeru.inference.sampling import drawn, sampling_of, stated
from darumeru.record.journal import Journal
from darumeru.record.sample import Repeat, Sample, table_of, tables_of_repeats
from darumeru.requests import Answer, PackedTokens, Request, Sampling, Thinking, by_repeat
from darumeru.scoring.aggregate import cluster_sum, f1_macro, macro_mean, matthews, mean
from darumeru.scoring.summary import score_task
from darumeru.settings import settings_of
from darumeru.task.score import Score, over_repeats

QWEN = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "eos_token_id": [1, 2]}


def asked(generation: dict[str, Any] | None = None, *, thinks: bool = False, **settings: Any) -> Sampling | None:
    return sampling_of(settings_of(model="m", **settings), generation or {}, thinks=thinks)


# -- settings ---------------------------------------------------------------------------------------------------------


def test_greedy_is_the_default_and_what_a_record_says_of_it_is_as_it_was() -> None:
    assert asked(QWEN) is None
    assert asked(temperature=0) is None
    assert stated(None, 1) == {"do_sample": False, "temperature": 0.0}


def test_any_setting_draws_and_what_is_not_given_leaves_no_token_out() -> None:
    assert asked(temperature=0.7) == Sampling(0.7, 1.0, 0, 0.0)
    assert asked(top_p=0.9) == Sampling(1.0, 0.9, 0, 0.0)
    assert stated(Sampling(0.7), 3) == {
        "do_sample": True, "temperature": 0.7, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeats": 3,
    }  # fmt: skip


def test_the_models_own_settings_and_options_before_them() -> None:
    assert asked(QWEN, sampling="model") == Sampling(0.6, 0.95, 20, 0.0)
    assert asked(QWEN, sampling="model", top_k=0, min_p=0.1) == Sampling(0.6, 0.95, 0, 0.1)
    assert asked({"do_sample": True}, sampling="model") == Sampling(1.0, 1.0, 0, 0.0)
    assert asked({"temperature": 0.8}, sampling="model") == Sampling(0.8, 1.0, 0, 0.0)
    assert asked(QWEN, sampling="model", temperature=0) is None, "an option goes before what the model recommends"


def test_a_model_that_thinks_draws_as_it_recommends_unless_it_is_told_otherwise() -> None:
    assert asked(QWEN, thinks=True) == Sampling(0.6, 0.95, 20, 0.0)
    assert asked(QWEN, thinks=True, temperature=0.9) == Sampling(0.9, 0.95, 20, 0.0)
    assert asked(QWEN, thinks=True, sampling="greedy") is None
    assert asked(QWEN, thinks=True, temperature=0) is None
    assert asked({"eos_token_id": 1}, thinks=True) is None, "it recommends nothing"


@pytest.mark.parametrize(
    ("generation", "settings", "said"),
    [
        ({}, {"sampling": "model"}, r"--sampling model: .* recommends no sampling\. Give --temperature"),
        ({"do_sample": False, "temperature": 0.6}, {"sampling": "model"}, "recommends no sampling"),
        ({"temperature": 0.0}, {"sampling": "model"}, "recommends no sampling"),
        (
            QWEN | {"top_p": 7},
            {"sampling": "model"},
            r"top_p in the model's generation_config\.json: 7 is not possible",
        ),
        ({}, {"repeats": 3}, "--repeats 3: greedy answers would be 3 times the same. Give --temperature"),
        ({}, {"temperature": 0, "top_k": 5}, "--top-k 5 has no effect on greedy answers"),
        (
            {},
            {"sampling": "greedy", "temperature": 0.6},
            "--temperature 0.6 has no effect .* --sampling greedy asks for",
        ),
        ({}, {"temperature": 0.001}, r"--temperature 0\.001: below 0\.01"),
    ],
)
def test_what_contradicts_itself_is_refused(generation: dict[str, Any], settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        asked(generation, **settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", -1), ("temperature", math.inf), ("top_p", 0), ("top_p", 1.1), ("top_k", -1), ("min_p", 2), ("repeats", 0),
     ("sampling", "hot")],
)  # fmt: skip
def test_impossible_values_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}: .* is not possible"):
        settings_of(model="m", **{name: value})


def test_what_else_a_model_recommends_is_said_not_to_apply(caplog: pytest.LogCaptureFixture) -> None:
    asked(QWEN | {"repetition_penalty": 1.05, "typical_p": 1.0}, sampling="model")
    assert [r.getMessage() for r in caplog.records] == [
        "The model recommends repetition_penalty 1.05 too, which is not applied."
    ]


# -- requests ---------------------------------------------------------------------------------------------------------


def some_requests() -> list[Request]:
    head = PackedTokens.of((7, 8)).joined()
    return [
        Request("t/0/0", "choose", (1, 2), "a", labels=(((3,),), ((4,),))),
        Request("t/0/1", "generate", PackedTokens.of((9,), head=head), ("a", "b"), max_tokens=5),
        Request("t/1/0", "generate", (1, 3), "c", max_tokens=5),
    ]


def test_each_repeat_is_a_request_with_a_seed_of_its_own() -> None:
    sampling = Sampling(0.5)
    found = drawn(some_requests(), sampling, 3, seed=4)
    assert [r.id for r in found] == ["t/0/0", "t/0/1", "t/0/1@1", "t/0/1@2", "t/1/0", "t/1/0@1", "t/1/0@2"]
    assert [r.repeat for r in found] == [0, 0, 1, 2, 0, 1, 2]
    assert [r.sampling for r in found] == [None, *[sampling] * 6]
    seeds = [r.seed for r in found[1:]]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert found[2].packed.head is found[1].packed.head, "a prompt is in memory once"
    assert (found[2].prompt, found[2].text, found[2].max_tokens) == ((7, 8, 9), "ab", 5)


def test_a_seed_depends_on_run_request_and_repeat_alone() -> None:
    one, three = (drawn(some_requests(), Sampling(0.5), n, seed=4) for n in (1, 3))
    seeds = {r.id: r.seed for r in three}
    assert {r.id: r.seed for r in one} == {r.id: seeds[r.id] for r in one}, "more repeats begin with the same answers"
    alone = drawn(some_requests()[2:], Sampling(0.9), 3, seed=4)
    assert all(r.seed == seeds[r.id] for r in alone)
    assert all(r.seed != seeds[r.id] for r in drawn(some_requests()[2:], Sampling(0.9), 3, seed=5))


def test_the_fingerprint_of_greedy_requests_is_as_it_was_and_drawn_ones_have_others() -> None:
    greedy = some_requests()
    assert requests_sha256(greedy) == "1cfa8bc95f0cbec0bc5f42e7870627e1757408abae254bc1f9837d0b30ec4e1a"
    others = [
        drawn(greedy, Sampling(0.5), 1, 0), drawn(greedy, Sampling(0.5), 2, 0), drawn(greedy, Sampling(0.5), 1, 1),
        drawn(greedy, Sampling(0.5, top_k=3), 1, 0),
    ]  # fmt: skip
    assert len({requests_sha256(r) for r in [greedy, *others]}) == 5


def test_where_nothing_is_generated_nothing_can_be_drawn() -> None:
    with pytest.raises(UserError, match="No answer can be drawn"):
        drawn(some_requests()[:1], Sampling(0.5), 2, 0)


def test_a_query_that_is_asked_once_is_part_of_every_repeat() -> None:
    repeats = by_repeat(drawn(some_requests()[:2], Sampling(0.5), 3, 0))
    assert [[r.id for r in repeat] for repeat in repeats] == [
        ["t/0/0", "t/0/1"], ["t/0/0", "t/0/1@1"], ["t/0/0", "t/0/1@2"],
    ]  # fmt: skip
    assert by_repeat(some_requests()[:2]) == [some_requests()[:2]]


class ThinkingEngine:
    """Thinks one token and ends the thought."""

    interleaves = follows = thinks = False

    tokenizer = SimpleNamespace(decode=lambda ids, **_: " ".join(map(str, ids)))

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def check_kinds(self, kinds: set[str]) -> None:
        pass

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        todo = [r for r in requests if r.id not in done]
        self.asked += todo
        yield [
            Answer(r.id, tokens=(r.seed, 99), finish="stop")
            if r.kind == "generate"
            else Answer(r.id, logprobs=(0.0, -1.0))
            for r in todo
        ]


def test_choices_behind_drawn_thoughts_are_repeated(tmp_path: Path) -> None:
    thinking = Thinking(budget=4, end=99, resume=(5,))
    requests = drawn([replace(r, thinking=thinking) for r in some_requests()[:2]], Sampling(0.5), 2, seed=4)
    assert [r.id for r in requests] == ["t/0/0", "t/0/0@1", "t/0/1", "t/0/1@1"]
    engine = ThinkingEngine()
    journal = Journal(tmp_path / "journal.jsonl")
    faults, _ = ask(engine, requests, journal)  # type: ignore[arg-type]
    assert not faults
    thoughts, answers = engine.asked[:4], engine.asked[4:]
    assert [r.id for r in thoughts] == [f"{r.id}#thought" for r in requests]
    assert all(r.kind == "generate" and r.sampling == Sampling(0.5) for r in thoughts)
    assert len({r.seed for r in thoughts}) == 4
    assert answers[1].prompt == (1, 2, thoughts[1].seed, 99, 5), "each choice is behind its own thought"
    texts = {r.id: r.seed for r in answers if r.kind == "generate"}
    assert len({*texts.values(), *(r.seed for r in thoughts)}) == 6, "an answer is not drawn with its thought's numbers"
    assert [[r.id for r in repeat] for repeat in by_repeat(requests)] == [["t/0/0", "t/0/1"], ["t/0/0@1", "t/0/1@1"]]


# -- scores -----------------------------------------------------------------------------------------------------------


def test_a_document_is_worth_the_mean_of_its_repeats() -> None:
    scores = [
        Score({"acc": a}, gold="x", pred=p, cluster="c", ties=1) for a, p in ((1, "x"), (0, "y"), (1, "x"), (1, "x"))
    ]
    found = over_repeats(scores)
    assert (found.metrics, found.gold, found.pred, found.cluster, found.ties) == ({"acc": 0.75}, "x", "x", "c", 4)
    assert found.repeats == tuple(scores)
    assert over_repeats(scores[:1]) is scores[0]


def documents(values: np.ndarray, clusters: list[str] | None = None, strata: list[str] | None = None) -> list[Sample]:
    """Documents from values (repeats, N)."""
    return [
        Sample(
            id=i, doc={}, gold="", requests=[], score={"m": float(column.mean())},
            cluster=clusters[i] if clusters else None, stratum=strata[i] if strata else None,
            repeats=[Repeat(score={"m": float(v)}) for v in column],
        )
        for i, column in enumerate(values.T)
    ]  # fmt: skip


@pytest.mark.parametrize("aggregate", [mean, macro_mean, cluster_sum])
def test_the_score_is_the_mean_of_the_scores_of_the_repeats(aggregate: Any) -> None:
    values = np.random.default_rng(0).random((4, 12))
    clusters = [f"c{i // 3}" for i in range(12)] if aggregate is cluster_sum else None
    strata = [f"s{i % 4 // 2}" for i in range(12)] if aggregate is macro_mean else None
    rows = documents(values, clusters, strata)
    found, _ = score_task(table_of(rows), {"m": aggregate}, ("m",), seed=0)
    by_hand = {
        "mean": values.mean(axis=1),
        "macro_mean": np.mean([values[:, [i for i in range(12) if strata[i] == s]].mean(axis=1) for s in ("s0", "s1")], axis=0)
        if strata else None,
        "cluster_sum": values.sum(axis=1) / 4,
    }[aggregate.__name__]  # fmt: skip
    each = [float(aggregate(t, "m", t.ones())[0]) for t in tables_of_repeats(rows)]
    assert each == pytest.approx(by_hand)
    assert found["score"]["value"] == pytest.approx(np.mean(by_hand))


def labelled(preds: list[list[str]], gold: list[str]) -> list[Sample]:
    return [
        Sample(
            id=i, doc={}, gold=g, requests=[], pred=preds[0][i], score={"m": float(np.mean([p[i] == g for p in preds]))},
            repeats=[Repeat(score={"m": float(p[i] == g)}, pred=p[i]) for p in preds],
        )
        for i, g in enumerate(gold)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("aggregate", "reference"),
    [(f1_macro, lambda g, p: f1_score(g, p, average="macro")), (matthews, matthews_corrcoef)],
)
def test_scores_of_labels_are_means_over_repeats_as_well(aggregate: Any, reference: Any) -> None:
    rng = np.random.default_rng(1)
    gold = ["yes" if x else "no" for x in rng.random(80) < 0.6]
    preds = [[g if rng.random() < 0.7 else "no" for g in gold] for _ in range(3)]
    table = table_of(labelled(preds, gold))
    each = [reference(gold, p) for p in preds]
    assert len({round(x, 6) for x in each}) == 3
    assert aggregate(table, "m", table.ones())[0] == pytest.approx(np.mean(each))
    found, _ = score_task(table, {"m": aggregate}, ("m",), seed=0)
    low, high = found["score"]["low"], found["score"]["high"]
    assert low < found["score"]["value"] < high
    # Three answers to each document are not three times as many documents.
    once = [replace(table, pred=table.pred[:1]), replace(table, pred=table.pred[1:2])]
    widths = [score_task(t, {"m": aggregate}, ("m",), seed=0)[0]["score"] for t in once]
    assert high - low > 0.6 * np.mean([w["high"] - w["low"] for w in widths])


def test_an_interval_covers_where_documents_were_answered_several_times() -> None:
    """60 documents of different difficulty, four answers each: about 95 % of the intervals hold the true score, not 95 % of
    those that would take 240 answers for 240 documents."""
    rng = np.random.default_rng(0)
    covered = wrong = 0
    for trial in range(150):
        hard = rng.beta(0.4, 0.4, size=60)
        values = (rng.random((4, 60)) < hard).astype(float)
        found, _ = score_task(table_of(documents(values)), {"m": mean}, ("m",), seed=trial, resamples=200)
        covered += found["score"]["low"] <= 0.5 <= found["score"]["high"]
        assert found["units"] == 60
        naive = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / values.size)
        wrong += abs(values.mean() - 0.5) <= naive
    assert 136 <= covered <= 149
    assert wrong < covered - 10
