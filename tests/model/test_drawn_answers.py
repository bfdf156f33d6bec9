"""Drawn answers on real engines and through whole runs: distribution, seeds, resuming, records, comparisons, races, gates."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darumeru.engines.hf.drawing import GumbelNoise, processors
from darumeru.errors import UserError
from darumeru.evaluation import Plan, execute, prepare, rescore, settings_of
from darumeru.leaderboard.compare import compare
from darumeru.leaderboard.load import read_run
from darumeru.race.contestants import Recorded, live
from darumeru.race.start import race_models
from darumeru.record.run import Run, load_run
from darumeru.requests import Answer, Request, Sampling
from support.commands import call
from support.engines import collect, open_hf
from support.runs import comparable, samples
from support.thinking import make_tasks
from support.tiny import KnowingEngine, make_model

TASKS = ("parus", "multiq", "use")


def plan_of(model: Path, **more: Any) -> Plan:
    settings = {"data": "mini", "tasks": TASKS, "engine": "hf", "temperature": 0.8, "repeats": 3, "limit": 12}
    return prepare(settings_of(**{"model": str(model)} | settings | more))


class Wavering(KnowingEngine):
    """Knows the answers, but not every time that it is asked for a text."""

    def __init__(self, plan: Plan, error: float = 0.5) -> None:
        super().__init__(plan)
        self.error = error

    def answer(self, request: Request) -> Answer:
        found = super().answer(request)
        wrong = request.kind == "generate" and random.Random(f"{request.id}{request.seed}").random() < self.error
        return replace(found, text="ничего") if wrong else found


# -- the hf engine ----------------------------------------------------------------------------------------------------


def test_the_greatest_noisy_logit_is_a_draw_from_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 2.0])
    noise = GumbelNoise(range(8), torch.device("cpu"))
    drawn = Counter(i for _ in range(1500) for i in noise(torch.empty(0), logits.repeat(8, 1)).argmax(dim=-1).tolist())
    shares = np.array([drawn[i] for i in range(5)]) / 12_000
    assert shares == pytest.approx(torch.softmax(logits, dim=0).numpy(), abs=0.015)  # three standard errors


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (Sampling(1.0), {0, 1, 2, 3}),
        (Sampling(1.0, top_k=2), {0, 1}),
        (Sampling(1.0, top_p=0.7), {0, 1}),
        (Sampling(1.0, min_p=0.15), {0, 1, 2}),
        (Sampling(0.5, min_p=0.15), {0, 1}),  # after the temperature
    ],
)  # probabilities 0.53, 0.30, 0.12, 0.05
def test_what_is_left_out_is_never_drawn(sampling: Sampling, left: set[int]) -> None:
    batch = [Request(str(i), "generate", (1,), "", sampling=sampling, seed=i) for i in range(400)]
    logits = torch.log(torch.tensor([0.53, 0.30, 0.12, 0.05])).repeat(len(batch), 1)
    found = processors(batch, torch.device("cpu"))(torch.ones(len(batch), 1, dtype=torch.long), logits)
    assert set(found.argmax(dim=-1).tolist()) == left


def drawn_requests(sampling: Sampling) -> list[Request]:
    rng = random.Random(0)
    prompts = [tuple(rng.randrange(6, 600) for _ in range(n)) for n in (3, 9, 9, 30, 80)]
    return [
        Request(f"g/{i}/{n}", "generate", p, "", max_tokens=6 + i, sampling=sampling, seed=10 * i + n)
        for i, p in enumerate(prompts)
        for n in range(3)
    ]


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.7, top_p=0.95, top_k=20)])
def test_a_row_draws_the_same_tokens_in_whichever_batch(tiny_base: Path, sampling: Sampling) -> None:
    requests = drawn_requests(sampling)
    greedy = [replace(r, id=f"{r.id}+", sampling=None) for r in requests]
    with open_hf(tiny_base) as engine:
        together = collect(engine, [*requests, *greedy])
        alone = {r.id: collect(engine, [r])[r.id] for r in requests[::4]}
        resumed = collect(engine, requests[::-1], tuple(r.id for r in requests[::2]))
    with open_hf(tiny_base, batch_tokens=250) as engine:
        small = collect(engine, requests)
    assert {i: a for i, a in together.items() if not i.endswith("+")} == small
    assert alone == {i: small[i] for i in alone}
    assert resumed == {i: small[i] for i in resumed}
    assert len(resumed) == len(requests) // 2
    texts = {r.id: small[r.id].tokens for r in requests}
    assert len({texts[f"g/4/{n}"] for n in range(3)}) == 3, "another seed, other tokens"
    assert together["g/4/0+"] == replace(together["g/4/1+"], id="g/4/0+"), "greedy neighbours are not drawn"


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_killed_among_repeats_goes_on_with_the_same_tokens(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat, tasks=("multiq",), limit=3, model_args={"batch_tokens": 4000})
    whole = execute(plan, tmp_path / "whole")
    begun = execute(plan, tmp_path / "begun")
    lines = [json.loads(line) for line in journal_of(begun, plan)]
    kept = [a for line in lines for a in line["answers"]][:5]
    broken = tmp_path / "broken" / begun.path.name
    broken.mkdir(parents=True)
    (broken / "header.json").write_bytes((begun.path / "header.json").read_bytes())
    (broken / "journal.jsonl").write_text(json.dumps({"seconds": 1.0, "answers": kept}) + "\n", encoding="utf-8")
    resumed = execute(plan, tmp_path / "broken")
    assert resumed.path == broken
    assert samples(resumed) == samples(whole) == samples(begun)
    assert comparable(resumed.scores) == comparable(whole.scores)
    asked = [r for s in whole.samples("multiq") for r in s.requests]
    assert [r.repeat for r in asked] == [0, 1, 2] * 3
    assert len({tuple(r.answer.tokens) for r in asked}) > 3


def journal_of(run: Run, plan: Plan) -> list[str]:
    """What the journal held before the record was written, from its answers."""
    answers = [r.answer.answer() for task in run.tasks for s in run.samples(task) for r in s.requests]
    named = [replace(a, id=r.id).to_json() for a, r in zip(answers, plan.requests, strict=True)]
    return [json.dumps({"seconds": 1.0, "answers": named})]


def test_the_record_has_means_repeats_and_their_spread(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)
    kinds = {r.id.split("/")[0]: r.kind for r in plan.requests}
    assert kinds == {"parus": "choose", "multiq": "generate", "use": "generate"} or kinds["multiq"] == "generate"
    run = execute(plan, tmp_path, open_engine=Wavering)
    assert run.header["generation"] == {
        "do_sample": True, "temperature": 0.8, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeats": 3,
    }  # fmt: skip
    multiq, parus = run.scores["tasks"]["multiq"], run.scores["tasks"]["parus"]
    rows = list(run.samples("multiq"))
    by_hand = [np.mean([s.repeats[n].score["f1"] / 2 + s.repeats[n].score["em"] / 2 for s in rows]) for n in range(3)]
    assert multiq["primary"] == ["f1", "em"]
    assert multiq["repeats"]["values"] == pytest.approx(by_hand)
    assert multiq["repeats"]["deviation"] == pytest.approx(np.std(by_hand, ddof=1))
    assert multiq["score"]["value"] == pytest.approx(np.mean(by_hand))
    assert (multiq["documents"], multiq["units"], multiq["requests"]) == (len(rows), len(rows), 3 * len(rows))
    assert "repeats" not in parus, "a choice is asked once"
    suite = run.scores["suite"]
    others = [run.scores["tasks"][t].get("repeats") for t in TASKS]
    each = np.mean(
        [
            o["values"] if o else [run.scores["tasks"][t]["score"]["value"]] * 3
            for t, o in zip(TASKS, others, strict=True)
        ],
        axis=0,
    )
    assert suite["repeats"]["values"] == pytest.approx(each)
    again = rescore(load_run(run.path))
    assert comparable(again.scores) == comparable(run.scores)
    shown = call("show", run.path)
    assert "temperature 0.8, 3 repeats" in " ".join(shown.split())
    assert f"deviation over 3 repeats: {multiq['repeats']['deviation']:.3f}" in " ".join(shown.split())
    assert call("show", run.path, "--task", "multiq", "--sample", rows[0].id).count("answer") >= 3


def test_a_greedy_record_knows_nothing_of_repeats(tiny_chat: Path, tmp_path: Path) -> None:
    greedy = {"temperature": None, "repeats": 1}
    run = execute(plan_of(tiny_chat, **greedy), tmp_path, open_engine=KnowingEngine)
    assert run.path == execute(plan_of(tiny_chat, **greedy, sampling="greedy"), tmp_path).path, "finished"
    text = "".join(p.read_text(encoding="utf-8") for p in sorted(run.path.rglob("*.json*")))
    assert '"repeat' not in text.replace('"repeated_golds"', "")
    assert run.header["generation"] == {"do_sample": False, "temperature": 0.0}


def test_drawn_runs_are_runs_of_their_own_and_the_seed_is_theirs(tiny_chat: Path, tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [
        {"temperature": None, "repeats": 1}, {}, {"repeats": 2}, {"seed": 1}, {"top_k": 5}, {"temperature": 0.7},
    ]  # fmt: skip
    ids = {plan_of(tiny_chat, **v).header()["requests_sha256"] for v in variants}
    assert len(ids) == len(variants)


def test_settings_that_draw_nothing_are_refused(tiny_chat: Path) -> None:
    with pytest.raises(UserError, match="No answer can be drawn"):
        plan_of(tiny_chat, tasks=("parus",))
    with pytest.raises(UserError, match="recommends no sampling"):
        plan_of(tiny_chat, temperature=None, sampling="model")


def test_the_models_own_settings_are_read_from_its_folder(tiny_chat: Path, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", chat=True)
    file = folder / "generation_config.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}))
    plan = plan_of(folder, temperature=None, sampling="model")
    assert plan.sampling == Sampling(0.6, 0.95, 20)
    assert {r.sampling for r in plan.requests if r.kind == "generate"} == {Sampling(0.6, 0.95, 20)}


def test_choices_behind_drawn_thoughts_are_repeated_and_resumed(thinking_model: Path, tmp_path: Path) -> None:
    zoo = make_tasks(tmp_path / "zoo")
    settings = {
        "model": str(thinking_model),
        "engine": "hf",
        "thinking": "on",
        "thinking_budget": 40,
        "tasks": ("legs",),
    }
    plan = prepare(settings_of(**settings, **zoo, temperature=1.5, repeats=3))
    whole = execute(plan, tmp_path / "whole")
    different = set()
    for sample in whole.samples("legs"):
        thoughts = [r.answer.thought for r in sample.requests]
        best = [r.answer.logprobs.index(max(r.answer.logprobs)) if r.answer.logprobs else None for r in sample.requests]
        right = [b is not None and "03468"[b] == sample.gold for b in best]
        assert [r.repeat for r in sample.requests] == [0, 1, 2]
        assert sample.score["acc"] == pytest.approx(sum(right) / 3)
        assert [r.score["acc"] for r in sample.repeats] == right
        different.add(len(set(thoughts)))
    assert max(different) == 3, "each repeat is thought anew"
    assert whole.scores.tasks["legs"].repeats is not None
    assert whole.scores.tasks["legs"].repeats.deviation > 0

    class KilledError(RuntimeError):
        pass

    def dying(plan: Plan) -> Any:
        engine = plan.opened.load(plan.max_len)
        answers, calls = engine.answers, []

        def until_the_thoughts_are_there(*args: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise KilledError
            yield from answers(*args)

        engine.answers = until_the_thoughts_are_there  # type: ignore[method-assign]
        return engine

    with pytest.raises(KilledError):
        execute(plan, tmp_path / "killed", open_engine=dying)
    resumed = execute(plan, tmp_path / "killed")
    assert samples(resumed) == samples(whole)
    assert comparable(resumed.scores) == comparable(whole.scores)


# -- what reads records -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("repeated")
    models = {name: make_model(folder / name, chat=True, seed=i) for i, name in enumerate(("a", "b"))}
    more = {"limit": 26}
    return {
        "a": execute(plan_of(models["a"], **more), folder, open_engine=lambda p: Wavering(p, 0.2)),
        "b": execute(plan_of(models["b"], **more), folder, open_engine=lambda p: Wavering(p, 0.8)),
        "greedy": execute(
            plan_of(models["b"], temperature=None, repeats=1, **more), folder, open_engine=lambda p: Wavering(p, 0.8)
        ),
    }


def test_comparisons_pair_documents_by_their_means(runs: dict[str, Run]) -> None:
    found = compare(runs["a"], runs["b"])
    line = next(line for line in found.lines if line.column == "multiq")
    means = [[s.mark(("f1", "em")) for s in runs[n].samples("multiq")] for n in ("a", "b")]
    gaps = np.subtract(means[1], means[0])
    assert line.difference.value == pytest.approx(gaps.mean())
    assert (line.better, line.worse) == ((gaps > 0).sum(), (gaps < 0).sum())
    assert line.difference.test == "bootstrap"
    half = (line.difference.high - line.difference.low) / 2  # type: ignore[operator]
    assert half == pytest.approx(2.06 * gaps.std(ddof=1) / np.sqrt(len(gaps)), rel=0.12), (
        "Student's, 25 degrees of freedom"
    )
    assert found.remarks == []
    mixed = compare(runs["a"], runs["greedy"]).remarks
    assert mixed == [
        "How answers were drawn differs: temperature 0.8 against greedy.", "Number of repeats differs: 3 against 1.",
    ]  # fmt: skip


def test_boards_gates_and_races_read_repeated_runs(runs: dict[str, Run], tmp_path: Path) -> None:
    read = read_run(runs["a"].path)
    assert isinstance(read, tuple)
    assert all(task.reproduced and task.draws is not None for task in read[0].tasks.values())
    folder = tmp_path / "site"
    call("leaderboard", *(run.path for run in runs.values()), "--output", folder)
    pages = [p.read_text(encoding="utf-8") for p in folder.rglob("index.html")]
    deviation = runs["a"].scores.tasks["multiq"].repeats
    assert deviation is not None
    shown = [p for p in pages if f"standard deviation between repeats:</span> {deviation.deviation:.3f}" in p]
    assert len(shown) == 1, "on the page of the run"
    policy = tmp_path / "p.yaml"
    policy.write_text("version: 1\nnon_inferiority: {multiq: 0.05}\nmaximum_share: {empty: {multiq: 0.5}}\n")
    said = json.loads(call("gate", policy, runs["b"].path, "--baseline", runs["a"].path, "--json", code=3))
    assert said["verdict"] == "NO-GO"
    call("gate", policy, runs["greedy"].path, "--baseline", runs["a"].path, code=2)
    found = race_models([str(runs[n].path) for n in ("a", "b")], output=tmp_path)
    assert found.pairs[0].verdict == "first"


def test_a_document_raced_is_worth_the_mean_of_its_repeats(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)
    with live(plan, tmp_path / "live", Wavering) as contestant:
        contestant.answer({"multiq": plan.documents["multiq"][:3]})
        values = [contestant.value("multiq", d) for d in plan.documents["multiq"][:3]]
    finished = Recorded.of(execute(plan, tmp_path / "whole", open_engine=Wavering))
    assert values == pytest.approx([finished.value("multiq", d) for d in plan.documents["multiq"][:3]])
