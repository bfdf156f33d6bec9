"""All checks, in the order of the table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.check import ROOT, Check, FailedError, Found, LacksError, Place, answer_of, python

CPU_TOLERANCE, GPU_TOLERANCE, HALF_TOLERANCE = 2e-4, 5e-3, 0.5
"""Largest differences of a sum of log-probabilities: float32 in another order, on another device, and 16 bits."""

PEAK_TFLOPS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L40": 181, "A10": 125, "4090": 165, "3090": 71}
"""Dense bfloat16 tensor-core peaks of NVIDIA's data sheets, for the utilisation."""

CHATS = [{"messages": [{"role": "user", "content": f"Сколько будет {n} плюс {n}?"}, {"role": "assistant", "content": str(2 * n)}]}
         for n in range(16)]  # fmt: skip


def against_plain(
    place: Place, engine: str, *arguments: str, model: Path | None = None, half: bool = False, **environment: str
) -> Found:
    """An engine's answers beside plain passes on the CPU in float32."""
    chosen = model or place.tiny
    dtype = ("--dtype", "auto") if half else ("--dtype", "float32")
    found = answer_of(
        "plain", engine, chosen, "--device", place.device, *dtype, *arguments, environment=environment or None
    )
    limit = HALF_TOLERANCE if half else CPU_TOLERANCE if place.device == "cpu" else GPU_TOLERANCE
    largest = {kind: found[kind] for kind in ("choose", "rank", "likelihood") if kind in found}
    ok = max(largest.values()) <= limit and (half or found.get("texts", 8) == 8)
    text = ", ".join(f"{kind} {value:.0e}" for kind, value in largest.items())
    text += f", {found['texts']} of 8 texts" if "texts" in found else ""
    return Found(text, ok, {**largest, "texts": found.get("texts"), "device": found["device"]})


def exact_twice(place: Place, engine: str, **environment: str) -> Found:
    """The same numbers, bit by bit, from two processes."""
    first, second = (
        answer_of("plain", engine, place.tiny, "--device", place.device, "--exact", environment=environment or None)[
            "answers"
        ]
        for _ in range(2)
    )
    differ = sum(first[name] != second[name] for name in first)
    return Found(f"{differ} of {len(first)} answers differ", differ == 0, {"differing": differ})


def memory_returns(place: Place, engine: str) -> Found:
    """Three models in one process, one after the other, as in an arena."""
    found = answer_of("plain", engine, place.tiny, "--device", "cuda", "--repeat", "3")
    lost = max(b - a for a, b in zip(found["free_after"], found["free_before"], strict=True))
    return Found(f"{lost / 2**20:.0f} MiB less are free after three models", lost < 1 << 30, {"lost_bytes": lost})


def large_vocabulary(place: Place, engine: str) -> Found:
    """Likelihood with 256k tokens, where whole logits are what fills the memory."""
    folder = place.folder / "large"
    make_model(folder, 256_000)
    return against_plain(place, engine, "--kinds", "choose", "likelihood", model=folder)


def inside_a_training(place: Place) -> Found:
    """Evaluation in memory of a bfloat16 LoRA training."""
    found = answer_of("training", place.tiny, place.folder / "training", place.device)
    bits, failures = found["bits"], found["failures"]
    ok = not failures and len(bits) == 2 and bits[0] != bits[1]
    return Found(
        failures[0] if failures else f"bits per byte {bits[0]:.3f} → {bits[-1]:.3f}", ok, {"bits_per_byte": bits}
    )


def loss_kernel(place: Place, name: str) -> Found:
    """A fused loss beside float32, and beside what chunks in bfloat16 lose."""
    chunks = answer_of("losses", "chunked")
    found = chunks if name == "chunked" else answer_of("losses", name)
    if not str(found["kernel"]).startswith(name):
        raise LacksError(
            f"the installed release is not used, {found['kernel']} is (lep/pretraining/kernels.py says why)"
        )
    ok = all(found[key] <= max(3 * chunks[key], 0.02) for key in ("loss", "hidden", "weight", "rare", "alone"))
    text = ", ".join(f"{key} {found[key]:.0e}" for key in ("loss", "hidden", "weight", "rare", "alone"))
    return Found(f"{found['kernel']}: {text}", ok, found)


def watch_in_parallel(place: Place, *arguments: str) -> Found:
    """A checkpoint is evaluated and nothing hangs."""
    support = support_of("checkpoints")
    support.checkpoint(place.tiny, place.folder / "t", 10)
    printed = python(
        ["-c", "from darumeru.cli import main; main()", "watch", place.folder / "t", "--once", "--data", "mini", "--tasks",
         "rwsd_tenth", "--num-fewshot", "0", "--limit", "4", "--engine", "vllm", "--stall", "600", "--output",
         place.folder / "runs", *arguments],
        timeout=1200,
    )  # fmt: skip
    return Found("evaluated" if "checkpoint-10 is evaluated" in printed else printed[-200:], "is evaluated" in printed)


def calibration(place: Place) -> Found:
    """`lep calibrate train --suite` with its GPU defaults."""
    data, out = place.folder / "chats.jsonl", place.folder / "out"
    data.write_text("\n".join(json.dumps(chat, ensure_ascii=False) for chat in CHATS))
    python(["-m", "lep", "calibrate", "train", "--model", place.tiny, "--data", data, "--output", out, "--suite",
            "darumeru-train", "--eval-every", "2", "--max-steps", "2", "--batch", "4"])  # fmt: skip
    runs = list((place.folder / "out.runs").glob("*/manifest.json"))
    return Found(f"{len(runs)} evaluations, model written", len(runs) >= 2 and (out / "lep.json").is_file())


def pretraining(place: Place, *launcher: str) -> Found:
    """A training in several processes beside the same in one."""
    corpus = place.folder / "corpus.jsonl"
    documents = support_of("pretraining").documents()
    corpus.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents))
    last = []
    for name, start in (("one", ["-m"]), ("several", ["-m", "accelerate.commands.launch", *launcher, "-m"])):
        python([*start, "lep", "pretrain", "--model", place.tiny, "--corpus", corpus, "--output", place.folder / name,
                "--block-size", "48", "--total-batch-size", "4", "--per-device-train-batch-size", "1", "--max-steps", "8",
                "--save-steps", "4", "--logging-steps", "1", "--warmup-steps", "1", "--learning-rate", "1e-2",
                "--weight-decay", "0", "--dtype", "float32"],
               {"CUDA_VISIBLE_DEVICES": "0"} if name == "one" else None)  # fmt: skip
        measures = json.loads((place.folder / name / "lep.json").read_text())["measures"]
        last.append(measures["loss"])
    return Found(f"loss {last[1]:.4f}, alone {last[0]:.4f}", abs(last[0] - last[1]) < 1e-2, {"losses": last})


def engine_speed(place: Place) -> Found:
    """Our engines beside stock lm-eval."""
    file = place.folder / "engines.json"
    given = ["--model", place.model] if place.model else []
    given += ["--engines", "hf,vllm" if find_spec("vllm") else "hf"]
    python([ROOT / "benchmarks" / "engines.py", *given, "--output", file], timeout=3600)
    figures = json.loads(file.read_text())
    ratios: dict[str, list[float]] = {}
    for case in figures["cases"]:
        ratios.setdefault(case["engine"], []).append(case["ratio"])
    text = ", ".join(f"{engine} {min(r):.1f} to {max(r):.1f} times faster" for engine, r in ratios.items())
    return Found(text, all(min(r) >= 1 for r in ratios.values()), figures)


def training_speed(place: Place) -> Found:
    """Tokens per second, memory and utilisation of `lep pretrain`."""
    import torch

    file, name = place.folder / "pretrain.json", torch.cuda.get_device_name(0)
    peak = next((tflops for key, tflops in PEAK_TFLOPS.items() if key in name), None)
    model = place.model
    if model is None:
        from darumeru.demo import fetch_smollm2

        model = fetch_smollm2(ROOT / "models")
    python([ROOT / "benchmarks" / "pretrain.py", "--model", model, "--steps", "20", "--batch", "16", "--block", "1024",
            *(["--peak-tflops", str(peak)] if peak else []), "--output", file], timeout=3600)  # fmt: skip
    figures = json.loads(file.read_text())
    way = figures["ways"]["embeddings"]
    used = f", {way['flops_utilisation']:.0%} of the peak" if "flops_utilisation" in way else ""
    text = f"{way['tokens_per_second']:,.0f} tokens/s{used}, {way['peak_bytes'] / 1e9:.1f} GB"
    return Found(text, way["speed_ratio"] > 1, figures)


def all_tests(place: Place) -> Found:
    """Every test, on this machine."""
    try:
        printed = python(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests"], timeout=7200)
    except FailedError as error:
        return Found(str(error), False)
    passed = re.search(r"\d+ passed[^\n]*", printed)
    return Found(passed[0] if passed else printed[-100:], True)


def support_of(name: str) -> Any:
    """A helper of the tests."""
    import importlib

    if str(ROOT / "tests") not in sys.path:
        sys.path.append(str(ROOT / "tests"))
    return importlib.import_module(f"support.{name}")


def make_model(folder: Path, vocabulary: int | None = None) -> Path:
    """Write a small chat model of random weights that both engines take: vLLM's kernels want heads of 32 and more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    support_of("tiny").make_model(folder, chat=True)
    config = LlamaConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.head_dim, config.initializer_range = 256, 256, 64, 0.1
    config.vocab_size = vocabulary or config.vocab_size
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def checks(also: tuple[Path, ...] = ()) -> list[Check]:
    """Return all checks; `also` are folders of further models."""
    plain, small = "the plain passes' numbers", f"≤ {CPU_TOLERANCE:.0e}, 8 texts"
    near = f"≤ {GPU_TOLERANCE:.0e}, 8 texts"
    vllm = ("vllm",)

    def vllm_with(*arguments: str, **environment: str) -> Callable[[Place], Found]:
        return lambda place: against_plain(place, "vllm", *arguments, **environment)

    found = [
        Check("hf on the CPU, float32", small, partial(against_plain, engine="hf"), absent_gpu=True),
        Check("hf on the GPU, float32", near, partial(against_plain, engine="hf"), gpus=1),
        Check("vllm on the CPU, float32", small, partial(against_plain, engine="vllm"), packages=vllm, absent_gpu=True),
        Check("vllm on the GPU, float32", near, vllm_with(), 1, vllm),
        Check("vllm, V1 model runner", near, vllm_with(VLLM_USE_V2_MODEL_RUNNER="0"), 1, vllm),
        Check("vllm, tensor parallel", near, vllm_with("--args", "tensor_parallel_size=2"), 2, vllm),
        Check("vllm, pipeline parallel", near, vllm_with("--args", "pipeline_parallel_size=2"), 2, vllm),
        Check("hf over two GPUs (device_map)", near, lambda p: against_plain(p, "hf", "--args", "device_map=auto"), 2),
        Check("hf --exact, twice", "equal bit by bit", partial(exact_twice, engine="hf")),
        Check("vllm --exact, twice", "equal bit by bit", partial(exact_twice, engine="vllm"), 1, vllm),
        Check("vllm --exact, batch-invariant", "equal bit by bit",
              lambda place: exact_twice(place, "vllm", VLLM_BATCH_INVARIANT="1"), 1, vllm),
        Check("hf, 256k tokens", near, partial(large_vocabulary, engine="hf")),
        Check("vllm, 256k tokens", near, partial(large_vocabulary, engine="vllm"), 1, vllm),
        Check("hf, three models in turn", "< 1 GiB stays taken", partial(memory_returns, engine="hf"), 1),
        Check("vllm, three models in turn", "< 1 GiB stays taken", partial(memory_returns, engine="vllm"), 1, vllm),
        Check("evaluation inside a bfloat16 LoRA training", "no failure", inside_a_training, packages=("peft", "accelerate")),
        Check("lep calibrate train --suite", "2 evaluations", calibration, 1, ("trl", "peft")),
        Check("watch, a GPU of its own", "evaluated", lambda p: watch_in_parallel(p, "--device", "cuda:1"), 2, vllm),
        Check("watch, tensor parallel", "evaluated",
              lambda p: watch_in_parallel(p, "--model-args", "tensor_parallel_size=2"), 2, vllm),
        Check("lep pretrain, two processes", "the loss of one",
              lambda p: pretraining(p, "--num_processes", "2"), 2, ("accelerate",)),
        Check("lep pretrain, FSDP", "the loss of one",
              lambda p: pretraining(p, "--num_processes", "2", "--use_fsdp", "--fsdp_version", "2"), 2, ("accelerate",)),
        Check("loss in chunks, bfloat16", "near float32", partial(loss_kernel, name="chunked")),
        Check("loss of Liger Kernel", "as near as chunks", partial(loss_kernel, name="liger-kernel"), 1, ("liger_kernel",)),
        Check("loss of cut-cross-entropy", "as near as chunks", partial(loss_kernel, name="cut-cross-entropy"), 1,
              ("cut_cross_entropy",)),
        Check("engines beside stock lm-eval", "no case slower", engine_speed, 1),
        Check("lep pretrain, speed", "faster than Trainer", training_speed, 1, ("accelerate",)),
        Check("all tests", "pass", all_tests, 1),
    ]  # fmt: skip
    for model in also:
        name = model.resolve().name
        for engine in ("hf", "vllm"):
            run = partial(against_plain, engine=engine, model=model, half=True)
            found.append(Check(f"{engine}, {name}", plain, run, packages=("vllm",) if engine == "vllm" else ()))
    return found
