"""A real language model through both engines, as a user runs it: SmolLM2-135M-Instruct from the package index."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from darumeru.record.run import Run, load_run

ROOT = Path(__file__).parents[2]
CHOICES = "rummlu,mmlu_ru,mmlu_en,parus,rcb,rwsd,ruopenbookqa,ruworldtree,rucola"
needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed on this machine"
)


def darumeru(*args: object) -> str:
    command = [sys.executable, "-c", "from darumeru.cli import main; main()", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run(model: Path, output: Path, engine: str, tasks: str, *more: object) -> Run:
    options = ["--model", model, "--data", "mini", "--engine", engine, "--tasks", tasks, "--dtype", "float32"]
    out = darumeru("run", *options, "--output", output, "--json", *more)
    return load_run(json.loads(out[out.index("{\n") :])["run"])


def load_agreement() -> ModuleType:
    spec = importlib.util.spec_from_file_location("agreement", ROOT / "benchmarks" / "agreement.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["agreement"] = module
    spec.loader.exec_module(module)
    return module


@needs_vllm
def test_both_engines_choose_the_same_labels(smollm2: Path, tmp_path: Path) -> None:
    """In float32, on at least 99 % of the samples; rankings and short texts too; differences are printed."""
    tasks = f"{CHOICES},sum_extractive,cp_sent_en"
    runs = [run(smollm2, tmp_path, engine, tasks, "--limit", 12) for engine in ("hf", "vllm")]
    found = load_agreement().agreement(*runs)
    print("\n".join(line for result in found.values() for line in result.differing))
    choices = [found[task] for task in CHOICES.split(",")]
    assert sum(r.samples for r in choices) == 12 * len(choices)
    assert sum(r.same for r in choices) >= 0.99 * sum(r.samples for r in choices)
    assert max(r.largest for r in found.values()) < 1e-3
    assert found["sum_extractive"].same >= 11
    assert found["cp_sent_en"].same >= 11


@needs_vllm
def test_five_shot_prompts_share_their_prefix_without_changing_numbers(smollm2: Path, tmp_path: Path) -> None:
    """With few-shot examples vLLM reads almost every prompt from its prefix cache."""
    options = ("--mode", "foundation", "--limit", 6)
    runs = [run(smollm2, tmp_path, engine, "ruopenbookqa,rucola", *options) for engine in ("hf", "vllm")]
    assert all(r.header["num_fewshot"] == 5 for r in runs)
    found = load_agreement().agreement(*runs)
    assert all(r.same == r.samples for r in found.values())
    assert max(r.largest for r in found.values()) < 1e-3


@needs_vllm
def test_exact_numbers_of_vllm_repeat_bit_by_bit(smollm2: Path, tmp_path: Path) -> None:
    """Two processes, the second without any cache of the first."""
    options = ("--limit", 6, "--exact")
    runs = [run(smollm2, tmp_path / str(i), "vllm", "rwsd,cp_sent_en", *options) for i in range(2)]
    for task in runs[0].tasks:
        assert list(runs[0].samples(task)) == list(runs[1].samples(task))


def test_the_real_model_copies_english_better_than_chance(smollm2: Path, tmp_path: Path) -> None:
    """The record holds the tokens that the model really generated."""
    done = run(smollm2, tmp_path, "hf", "cp_sent_en", "--limit", 6)
    assert done.scores["tasks"]["cp_sent_en"]["score"]["value"] > 0.5
    for sample in done.samples("cp_sent_en"):
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
def test_an_adapter_says_the_same_on_both_engines(smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(smollm2, tmp_path / "adapter")
    options = ("--limit", 6)
    plain = run(smollm2, tmp_path, "hf", "rwsd,parus", *options)
    runs = [run(smollm2, tmp_path, engine, "rwsd,parus", *options, "--adapter", adapter) for engine in ("hf", "vllm")]
    found = load_agreement().agreement(*runs)
    assert all(r.same == r.samples for r in found.values())
    assert max(r.largest for r in found.values()) < 1e-3
    changed = load_agreement().agreement(plain, runs[0])
    assert max(r.largest for r in changed.values()) > 1e-2


@needs_vllm
def test_an_adapter_for_another_base_is_refused_by_vllm(smollm2: Path, tmp_path: Path) -> None:
    adapter = make_adapter(smollm2, tmp_path / "adapter", hidden=288)
    command = [sys.executable, "-c", "from darumeru.cli import main; main()", "run", "--model", str(smollm2)]
    command += ["--data", "mini", "--tasks", "rwsd", "--limit", "2", "--engine", "vllm", "--adapter", str(adapter)]
    done = subprocess.run([*command, "--output", str(tmp_path / "runs")], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "does not fit this model; was it trained on another base?" in " ".join(done.stderr.split())
