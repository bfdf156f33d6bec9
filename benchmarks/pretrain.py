"""Speed and memory of `lep pretrain`, beside transformers' Trainer training everything with the same batch.

    python benchmarks/pretrain.py --model DIR [--steps 6] [--batch 4] [--block 256] [--add 8000]

DIR holds SmolLM2-135M-Instruct, or another small model with a byte-level BPE. Its vocabulary is extended with Russian
tokens (`lep vocab extend`, `lep init`), then each way trains a few steps on Russian prose, each in a process of its own,
one after another: the plain `transformers.Trainer` on everything, as it comes; and ours on everything, on embeddings, on
the head (SmolLM2 ties both: by the gradient of the head alone) and on the new rows. All read the same full rows of tokens,
in float32 on a CPU and in bfloat16 on a GPU (the plain one by `bf16=True`).

Measured: tokens per second (median of the steps after the first), bytes of gradients and of optimizer state, and the peak
memory of the steps (resident on a CPU, allocated on a GPU) with its growth over the loaded model. On a GPU with
--peak-tflops also model FLOPs utilisation (arXiv 2204.02311): a token costs 6N + 6Vd in full training, 4N + 6Vd where the
gradient crosses a frozen trunk of N weights, 2N + 6Vd for the head alone. Needs the shared data folder (DARUMERU_SHARED).
Results go to benchmarks/results/pretrain.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
PROSE = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data/corpus/ru/ruslit_prose.jsonl.gz"
PLAIN = "transformers.Trainer, all"
TRUNK = {PLAIN: 6, "all": 6, "embeddings": 4, "new-rows": 4, "head": 2}
"""FLOPs a token for each weight of the trunk."""
TARGETS = {"speed": 1.3, "memory": 0.5}


def prepare_inputs(model: Path, place: Path, options: argparse.Namespace) -> None:
    """The model with Russian tokens, and rows of full length."""
    from transformers import AutoTokenizer

    from lep.initialisation.job import initialise
    from lep.pretraining.blocks import open_blocks
    from lep.vocab.commands import extend_vocabulary

    extend_vocabulary(model, [PROSE], place / "tokenizer", add=options.add)
    initialise(model, place / "tokenizer", place / "model")
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    blocks = open_blocks([PROSE], tokenizer, place / "blocks", block_size=2 * options.block)
    full = (i for i, length in enumerate(blocks.lengths) if length >= options.block)
    wanted = options.steps * options.batch
    np.save(
        place / "rows.npy", np.stack([blocks[i][: options.block] for i, _ in zip(full, range(wanted), strict=False)])
    )


class Rows:
    """The rows as a data set: ours wants blocks, the plain Trainer ids and labels."""

    def __init__(self, file: Path, plain: bool) -> None:
        self.rows, self.plain = np.load(file), plain

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return {"input_ids": row, "labels": row} if self.plain else {"row": index, "blocks": [row]}


class Memory:
    """Peak memory since the object was made, and what was in use then, in bytes."""

    def __init__(self, gpu: bool) -> None:
        import torch

        self.gpu, self.torch = gpu, torch
        if gpu:
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
            self.before = self._status("VmRSS")

    def peak(self) -> int:
        """Bytes."""
        return self.torch.cuda.max_memory_allocated() if self.gpu else self._status("VmHWM")

    @staticmethod
    def _status(key: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(key + ":")).split()[1]) * 1024


def measure(way: str, place: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps one way, in this process."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from lep.measure.held_out import HeldOut
    from lep.model.checkpoint import open_checkpoint
    from lep.model.manifest import added_ids, read_manifest
    from lep.pretraining.blocks import Collator
    from lep.pretraining.trainable import prepare
    from lep.pretraining.trainer import PretrainTrainer, Rates

    class Meter(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.gradients = 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = self.now()

        def on_pre_optimizer_step(self, *_: Any, model: Any = None, **__: Any) -> None:
            grads = [p.grad for p in model.parameters() if p.grad is not None]
            self.gradients = sum(g.numel() * g.element_size() for g in grads)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.seconds.append(self.now() - self.began)

        @staticmethod
        def now() -> float:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            return time.perf_counter()

    gpu, plain = torch.cuda.is_available(), way == PLAIN
    arguments = TrainingArguments(
        output_dir=str(place / "out"), per_device_train_batch_size=options.batch, max_steps=options.steps,
        learning_rate=2e-4, weight_decay=0.1, lr_scheduler_type="cosine", bf16=gpu, use_cpu=not gpu, save_strategy="no",
        eval_strategy="no", report_to="none", disable_tqdm=True, logging_strategy="no", remove_unused_columns=False,
        train_sampling_strategy="sequential", dataloader_pin_memory=gpu,
    )  # fmt: skip
    compute = torch.bfloat16 if gpu else torch.float32
    folder, meter = place / "model", Meter()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32 if plain else compute)
    model.to(arguments.device)
    if plain:
        memory = Memory(gpu)
        settings = {"train_dataset": Rows(place / "rows.npy", True), "callbacks": [meter]}
        trainer: Any = Trainer(model=model, args=arguments, **settings)
    else:
        source, new_ids = open_checkpoint(folder), added_ids(read_manifest(folder))
        memory = Memory(gpu)
        trainable = prepare(model, way, source, new_ids=new_ids, compute=compute)
        trainer = PretrainTrainer(
            trainable, arguments, source=source, rates=Rates(2e-4, 2e-4, 2e-4, 2e-4), start=0, stop=options.steps,
            held_out=HeldOut({}, {}), train_dataset=Rows(place / "rows.npy", False), data_collator=Collator(0),
            callbacks=[meter],
        )  # fmt: skip
    trainer._save_checkpoint = lambda *_: None  # what is measured is training
    loss = trainer.train().training_loss
    states = [v for s in trainer.optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    state = sum(v.numel() * v.element_size() for v in states)
    tokens = options.batch * options.block
    speed = tokens / statistics.median(meter.seconds[1:])
    head = model.get_output_embeddings().weight.numel()
    trunk = sum(p.numel() for p in model.parameters()) - head * (1 if model.config.tie_word_embeddings else 2)
    flops = TRUNK[way] * trunk + 6 * head
    result = {
        "tokens_per_second": round(speed, 1),
        "seconds": [round(s, 3) for s in meter.seconds],
        "loss": round(loss, 4),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "gradient_bytes": meter.gradients,
        "optimizer_bytes": state,
        "peak_bytes": memory.peak(),
        "growth_bytes": memory.peak() - memory.before,
        "gflop_per_token": round(flops / 1e9, 3),
    }
    if gpu and options.peak_tflops:
        result["flops_utilisation"] = round(speed * flops / (options.peak_tflops * 1e12), 4)
    return result


def main() -> None:
    """Measure all ways, each in a process of its own."""
    parser = argparse.ArgumentParser(description="Speed and memory of lep pretrain beside the plain Trainer.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--add", type=int, default=8000)
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bfloat16, for the utilisation")
    parser.add_argument("--output", type=Path, default=RESULTS / "pretrain.json")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.place, options)))
        return

    import torch

    ways: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        prepare_inputs(options.model, place, options)
        for way in TRUNK:
            own = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--place", name]
            done = subprocess.run(own, stdout=subprocess.PIPE, text=True, check=True)
            ways[way] = json.loads(done.stdout.splitlines()[-1])
            print(f"{way}: {ways[way]['tokens_per_second']:.1f} tokens/s, peak {ways[way]['peak_bytes'] / 1e9:.2f} GB")
    base = ways[PLAIN]
    for way in ways.values():
        way["speed_ratio"] = round(way["tokens_per_second"] / base["tokens_per_second"], 3)
        way["state_ratio"] = round(
            (way["gradient_bytes"] + way["optimizer_bytes"]) / (base["gradient_bytes"] + base["optimizer_bytes"]), 3
        )
    result = {
        "model": options.model.resolve().name,
        "settings": {key: getattr(options, key) for key in ("steps", "batch", "block", "add", "peak_tflops")},
        "machine": {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "targets": TARGETS,
        "ways": ways,
    }
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n")
    for name, way in ways.items():
        print(f"{name}: {way['speed_ratio']}x tokens/s, {way['state_ratio']} of gradients + optimizer state")


if __name__ == "__main__":
    main()
