"""A real language model through both engines, as a user runs it: SmolLM2-135M-Instruct from the package index."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from darumeru.engines.base import Engine
from darumeru.evaluation import evaluate, execute, prepare, settings_of
from darumeru.record.run import Run, load_run
from support.commands import call
from support.real import ASKED, CHOICES, load_agreement, needs_vllm

pytestmark = pytest.mark.xdist_group("vllm")  # one loaded engine serves them


def darumeru(*args: object) -> str:
    command = [sys.executable, "-c", "from darumeru.cli import main; main()", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Triton" not in done.stderr, "what vLLM says of its build is no concern of a user's"
    assert "Warning" not in done.stderr
    return done.stdout


def run(model: Path, output: Path, tasks: str, *more: object) -> Run:
    """A run by the command and vLLM, in a process of its own."""
    options = ["--model", model, "--data", "mini", "--engine", "vllm", "--tasks", tasks, "--dtype", "float32"]
    out = darumeru("run", *options, "--output", output, "--json", *more)
    return load_run(json.loads(out[out.index("{\n") :])["run"])


def run_in(engine: Engine, model: Path, output: Path, **asked: Any) -> Run:
    """A run by the loaded vLLM."""
    plan = prepare(settings_of(model=str(model), engine="vllm", **asked))
    return execute(plan, output, open_engine=lambda _: engine)


def test_rounding_is_not_taken_for_numbers_that_change(smollm2: Path) -> None:
    """In bfloat16 logits of a real model differ by 0.2 where prompts are padded, and prompts are padded all the same."""
    plan = prepare(
        settings_of(model=str(smollm2), data="mini", tasks=("cp_sent_en",), limit=4, engine="hf", dtype="bfloat16")
    )
    with plan.opened.load(plan.max_len) as engine:
        forward: Any = engine.forward  # type: ignore[attr-defined]
        for request in plan.requests:
            forward.tried_pads = forward.tried_continues = forward.tried_leaves = None
            assert forward.pads(request.prompt), request.id
            assert forward.continues(request.prompt), request.id
            assert forward.leaves(request.prompt), request.id


@needs_vllm
def test_both_engines_choose_the_same_labels(hf_run: Run, vllm: Engine, smollm2: Path, tmp_path: Path) -> None:
    """In float32, on at least 99 % of the samples; rankings and short texts too; differences are printed."""
    found = load_agreement().agreement(hf_run, run_in(vllm, smollm2, tmp_path, **ASKED))
    print("\n".join(line for result in found.values() for line in result.differing))
    choices = [found[task] for task in CHOICES]
    assert sum(r.samples for r in choices) == ASKED["limit"] * len(choices)
    assert sum(r.same for r in choices) >= 0.99 * sum(r.samples for r in choices)
    assert max(r.largest for r in found.values()) < 1e-3
    assert found["sum_extractive"].same >= ASKED["limit"] - 1
    assert found["cp_sent_en"].same >= ASKED["limit"] - 1


@needs_vllm
def test_five_shot_prompts_share_their_prefix_without_changing_numbers(
    vllm: Engine, smollm2: Path, tmp_path: Path
) -> None:
    """With few-shot examples vLLM reads almost every prompt from its prefix cache."""
    asked: dict[str, Any] = {
        "data": "mini", "tasks": ("ruopenbookqa", "rucola"), "mode": "foundation", "limit": 3, "dtype": "float32",
    }  # fmt: skip
    runs = [
        evaluate(smollm2, engine="hf", output=tmp_path, device="cpu", **asked),
        run_in(vllm, smollm2, tmp_path, **asked),
    ]
    assert all(r.header["num_fewshot"] == 5 for r in runs)
    found = load_agreement().agreement(*runs)
    assert [r.samples for r in found.values()] == [3, 3]
    assert all(r.same == r.samples for r in found.values())
    assert max(r.largest for r in found.values()) < 1e-3


@needs_vllm
def test_exact_numbers_of_vllm_repeat_bit_by_bit(smollm2: Path, tmp_path: Path) -> None:
    """Two processes, the second without any cache of the first."""
    options = ("--limit", 3, "--exact")
    runs = [run(smollm2, tmp_path / str(i), "rwsd,cp_sent_en", *options) for i in range(2)]
    for task in runs[0].tasks:
        assert list(runs[0].samples(task)) == list(runs[1].samples(task))


def test_the_real_model_copies_english_better_than_chance(hf_run: Run) -> None:
    """The record holds the tokens that the model really generated."""
    assert hf_run.scores["tasks"]["cp_sent_en"]["score"]["value"] > 0.5
    for sample in hf_run.samples("cp_sent_en"):
        answer = sample["requests"][0]["answer"]
        assert answer["tokens"]
        assert 0 < sample["score"]["len"] <= 1


def make_adapter(smollm2: Path, folder: Path, hidden: int | None = None) -> Path:
    """A LoRA adapter with random weights that change what the model says; with `hidden`, for a model of another width."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(smollm2)
    torch.manual_seed(1)
    if hidden is not None:
        config.hidden_size, config.num_hidden_layers, config.layer_types = hidden, 2, None
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(folder)
    return folder


@needs_vllm
def test_an_adapter_says_the_same_on_both_engines(hf_run: Run, smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(smollm2, tmp_path / "adapter")
    tasks = ("rwsd", "parus")
    asked: dict[str, Any] = {"data": "mini", "tasks": tasks, "limit": 3, "dtype": "float32", "adapter": adapter}
    runs = [
        evaluate(smollm2, engine="hf", output=tmp_path, device="cpu", **asked),
        run(smollm2, tmp_path, ",".join(tasks), "--limit", 3, "--adapter", adapter),
    ]
    found = load_agreement().agreement(*runs)
    assert [r.samples for r in found.values()] == [3, 3]
    assert all(r.same == r.samples for r in found.values())
    assert max(r.largest for r in found.values()) < 1e-3
    assert max(change(hf_run, runs[0], task) for task in tasks) > 1e-2, "the adapter changes the numbers"


def change(plain: Run, other: Run, task: str) -> float:
    """The largest difference of log-probabilities between a run and another of some of its documents."""
    of_plain = {sample["id"]: sample for sample in plain.samples(task)}
    pairs = [
        (x["answer"]["logprobs"], y["answer"]["logprobs"])
        for sample in other.samples(task)
        for x, y in zip(of_plain[sample["id"]]["requests"], sample["requests"], strict=True)
    ]
    return max(abs(p - q) for x, y in pairs for p, q in zip(x, y, strict=True))


@needs_vllm
def test_an_adapter_for_another_base_is_refused_by_vllm(smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(smollm2, tmp_path / "adapter", hidden=288)
    said = call(
        "run", "--model", smollm2, "--data", "mini", "--tasks", "rwsd", "--limit", 2, "--engine", "vllm", "--adapter", adapter,
        "--output", tmp_path / "runs", code=2,
    )  # fmt: skip
    assert "does not fit this model; was it trained on another base?" in " ".join(said.split())
