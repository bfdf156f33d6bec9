"""The record of a run: it goes on after a kill, is not computed twice, differs when a setting does, names what failed."""

import json
from pathlib import Path
from typing import Any

import pytest

import darumeru
from darumeru.errors import DarumeruError, UserError
from darumeru.evaluation import Plan, execute, prepare, rescore, settings_of
from darumeru.files import write_json
from darumeru.record.run import load_run
from support.runs import comparable, samples
from support.tiny import KnowingEngine, make_model

TASKS = ("parus", "sum_extractive", "multiq", "use")


def plan_of(model: Path, **more: Any) -> Plan:
    return prepare(settings_of(**{"model": str(model), "data": "mini", "tasks": TASKS, "engine": "hf", **more}))


def test_a_finished_run_is_complete_and_not_computed_again(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)
    run = execute(plan, tmp_path, open_engine=KnowingEngine)
    assert run.complete
    assert not (run.path / "journal.jsonl").exists()
    header = run.header
    assert header["model"]["name"] == "tiny-chat"
    assert len(header["model"]["weights_sha256"]) == 64
    assert header["model"]["chat_template"].startswith("{{ bos_token }}")
    assert header["tasks"]["parus"]["data"]["test"]["rows"] == 28
    assert len(header["tasks"]["parus"]["data"]["test"]["sha256"]) == 64
    assert header["environment"] == {"engine": "oracle", "dtype": "none"}
    time_ = run.scores["time"]
    assert 0 <= time_["engine_seconds"] <= time_["wall_seconds"]
    assert 0 <= time_["not_engine_share"] <= 1
    for key in ("mode", "num_fewshot", "seed", "limit", "max_prompt_len", "engine", "generation", "suite"):
        assert key in header
    sample = next(iter(run.samples("parus")))
    assert len(sample["requests"]) == 2
    assert "<|user|>" in sample["requests"][0]["prompt"]
    assert sample["score"] == {"acc": 1.0}

    def never(plan: Plan) -> KnowingEngine:
        raise AssertionError("a finished run needs no engine")

    (run.path / "journal.jsonl").write_text("left by a process that was killed after it had written the manifest\n")
    again = execute(plan, tmp_path, open_engine=never)
    assert again.path == run.path
    assert not (run.path / "journal.jsonl").exists()


def test_changed_settings_are_other_runs(tiny_chat: Path, tmp_path: Path) -> None:
    wording = tmp_path / "w.yaml"
    wording.write_text("multiq: {doc_to_text: 'Вопрос: {{inputs.question}}'}", encoding="utf-8")
    variants: list[dict[str, Any]] = [
        {}, {"limit": 5}, {"seed": 1}, {"num_fewshot": 1}, {"max_prompt_len": 300}, {"dtype": "float32"},
        {"tasks": TASKS[:2]}, {"wording": wording}, {"mode": "foundation"}, {"model_args": {"batch_tokens": 64}},
    ]  # fmt: skip
    paths = {execute(plan_of(tiny_chat, **v), tmp_path / "runs", open_engine=KnowingEngine).path for v in variants}
    assert len(paths) == len(variants)


def test_limit_is_a_seeded_sample_of_whole_exams(tiny_chat: Path) -> None:
    plans = [plan_of(tiny_chat, limit=10, seed=s) for s in (0, 0, 1)]
    assert plans[0].documents == plans[1].documents != plans[2].documents
    assert len(plans[0].documents["parus"]) == 10
    assert plans[0].documents["parus"] != list(range(10))
    docs = plans[0].tasks["use"].docs()
    chosen = plans[0].documents["use"]
    variants = {docs[i]["meta"]["variant"] for i in chosen}
    assert chosen == [i for i, d in enumerate(docs) if d["meta"]["variant"] in variants]
    # Tasks on the same documents get the same sample.
    both = plan_of(tiny_chat, tasks=("mmlu_ru", "mmlu_en", "sum_abstractive", "sum_extractive"), limit=7)
    assert both.documents["mmlu_ru"] == both.documents["mmlu_en"]
    assert both.documents["sum_abstractive"] == both.documents["sum_extractive"]


class DyingEngine(KnowingEngine):
    """Breaks after some answers."""

    def answers(self, requests: Any, done: Any = ()) -> Any:
        for count, batch in enumerate(super().answers(requests, done)):
            if count == 40:
                raise RuntimeError("the engine died")
            yield batch


def test_a_suite_limits_its_tasks(tiny_chat: Path, tmp_path: Path) -> None:
    """`metadata: limits` of a suite, as `darumeru signal` writes it; --limit can only lower it."""
    (tmp_path / "few.yaml").write_text(
        "group: few\ngroup_alias: Few\ntask: [parus, multiq]\nmetadata: {version: 1.0, limits: {parus: 6}}\n",
        encoding="utf-8",
    )
    settings = {"suite": "few", "include_path": [tmp_path], "tasks": ()}
    plan = plan_of(tiny_chat, **settings)
    assert {task: len(documents) for task, documents in plan.documents.items()} == {"parus": 6, "multiq": 26}
    assert plan.documents["parus"] == plan_of(tiny_chat, limit=6).documents["parus"]
    lower = plan_of(tiny_chat, limit=4, **settings)
    assert {task: len(documents) for task, documents in lower.documents.items()} == {"parus": 4, "multiq": 4}
    header = execute(plan, tmp_path / "runs", open_engine=KnowingEngine).header
    assert (header["suite"]["name"], header["tasks"]["parus"]["documents"]) == ("few", 6)


def test_a_broken_run_goes_on_where_it_stopped(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)
    with pytest.raises(RuntimeError, match="died"):
        execute(plan, tmp_path / "a", open_engine=DyingEngine)
    path = next((tmp_path / "a").iterdir())
    assert not load_run(path).complete
    with pytest.raises(UserError, match="not finished"):
        _ = load_run(path).scores
    journal = path / "journal.jsonl"
    stored = len(journal.read_text(encoding="utf-8").splitlines())
    assert stored == 40
    with journal.open("a", encoding="utf-8") as file:
        file.write('{"seconds": 0.1, "answers": [{"id": "parus/0/0", "logpr')  # cut off in the middle

    engines: list[KnowingEngine] = []

    def remember(plan: Plan) -> KnowingEngine:
        engines.append(KnowingEngine(plan))
        return engines[-1]

    resumed = execute(plan, tmp_path / "a", open_engine=remember)
    whole = execute(plan, tmp_path / "b", open_engine=remember)
    assert len(engines[0].asked) == len(plan.requests) - stored
    assert samples(resumed) == samples(whole)
    assert comparable(resumed.scores) == comparable(whole.scores)


def test_a_task_that_fails_is_named_and_blanks_the_mean(tiny_chat: Path, tmp_path: Path) -> None:
    class NoMemory(KnowingEngine):
        def answer(self, request: Any) -> Any:
            answer = super().answer(request)
            return (
                type(answer)(answer.id, error="out of memory on one prompt") if request.id == "multiq/3/0" else answer
            )

    plan = plan_of(tiny_chat)
    run = execute(plan, tmp_path, open_engine=NoMemory)
    assert not run.complete
    assert run.scores["failed"] == {"multiq": "out of memory on one prompt"}
    assert run.scores["suite"]["value"] is None
    assert run.scores["groups"]["darumera"]["value"] is None
    assert run.scores["tasks"]["parus"]["score"]["value"] == 1.0

    engines = []
    fixed = execute(plan, tmp_path, open_engine=lambda p: engines.append(KnowingEngine(p)) or engines[-1])  # type: ignore[func-returns-value]
    assert engines[0].asked == ["multiq/3/0"]
    assert fixed.complete
    assert fixed.scores["suite"]["value"] == 1.0


def test_rescore_gives_the_same_scores_and_repairs_the_record(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)
    run = execute(plan, tmp_path, open_engine=lambda p: KnowingEngine(p, spoil=0.4))
    scores = run.scores
    write_json(run.path / "scores.json", scores.to_json() | {"suite": {"value": 0.99, "low": 0.98, "high": 1.0}})
    with pytest.raises(DarumeruError, match=r"scores\.json.*rescore"):
        execute(plan, tmp_path, open_engine=KnowingEngine)
    again = rescore(load_run(run.path))
    assert comparable(again.scores) == comparable(scores)
    assert again.scores["rescored"]["darumeru"]
    again.verify()


def test_a_rescoring_that_was_killed_loses_no_answer(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat, tasks=("parus",), limit=4)
    run = execute(plan, tmp_path, open_engine=KnowingEngine)
    before, stored = comparable(run.scores), samples(run)
    (run.path / "manifest.json").unlink()  # as it stands between `unseal` and `seal`

    def never(plan: Plan) -> KnowingEngine:
        raise AssertionError("all answers are in the samples")

    again = execute(plan, tmp_path, open_engine=never)
    assert again.complete
    again.verify()
    assert (comparable(again.scores), samples(again)) == (before, stored)


def test_two_processes_do_not_compute_one_run(tiny_chat: Path, tmp_path: Path) -> None:
    plan = plan_of(tiny_chat)

    class Nosy(KnowingEngine):
        def answers(self, requests: Any, done: Any = ()) -> Any:
            with pytest.raises(UserError, match="Another process"):
                execute(plan, tmp_path, open_engine=KnowingEngine)
            yield from super().answers(requests, done)

    assert execute(plan, tmp_path, open_engine=Nosy).complete


def test_model_names_never_become_paths(tiny_chat: Path, tmp_path: Path) -> None:
    from support.tiny import make_model

    odd = make_model(tmp_path / "..odd & <b>name", chat=True)
    run = execute(plan_of(odd, tasks=("parus",)), tmp_path / "runs", open_engine=KnowingEngine)
    assert run.path.parent == tmp_path / "runs"
    assert run.path.name.startswith("odd-b-name-darumeru-")
    assert run.header["model"]["name"] == "..odd & <b>name"


def test_python_api(tiny_chat: Path, tmp_path: Path) -> None:
    seen = []
    run = darumeru.evaluate(
        tiny_chat, data="mini", tasks=["rwsd"], engine="hf", output=tmp_path, limit=4,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert isinstance(run, darumeru.Run)
    assert darumeru.load_run(run.path).scores["tasks"]["rwsd"]["documents"] == 4
    assert seen[-1][0] == seen[-1][1]
    with pytest.raises(UserError, match=r"Unknown setting 'limits'\. Did you mean 'limit'\?"):
        darumeru.evaluate(tiny_chat, limits=3)
    assert json.loads((run.path / "manifest.json").read_text())["complete"] is True


def test_a_context_shorter_than_every_prompt_is_refused(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", chat=False, context=64)
    with pytest.raises(UserError, match=r"The model's context holds 64 tokens, and the shortest prompt alone has \d+"):
        prepare(settings_of(model=str(model), data="mini", tasks=["cp_para_ru"], limit=4))
    longer = make_model(tmp_path / "longer", chat=False, context=400)
    plan = prepare(settings_of(model=str(longer), data="mini", tasks=["cp_para_ru", "rucola"], limit=4, num_fewshot=0))
    # Where some fit the others are cut, and counted.
    assert {bool(request.truncated) for request in plan.requests} == {True, False}


def test_log_probabilities_that_are_no_numbers_are_no_answers(tiny_base: Path, tmp_path: Path) -> None:
    """A model that overflows has NaN for everything; the first label, or the first sentences, would be its choice."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_base)
    model.model.norm.weight.data[3] = float("nan")
    model.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "nan")
    assert torch.isnan(model(torch.tensor([[5, 6]])).logits).all()
    run = darumeru.evaluate(
        tmp_path / "nan",
        data="mini",
        tasks=["parus", "sum_extractive"],
        limit=3,
        engine="hf",
        output=tmp_path / "runs",
    )
    assert not run.complete
    assert not run.scores.tasks
    assert set(run.scores.failed) == {"parus", "sum_extractive"}
    for fault in run.scores.failed.values():
        assert "the model's log-probabilities are no numbers (NaN)" in fault
        assert "--dtype" in fault
