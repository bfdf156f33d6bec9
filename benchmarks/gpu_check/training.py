"""Evaluation inside a training in bfloat16 with LoRA, embedding and head in float32: what `lep calibrate train` has on a GPU.

    python -m benchmarks.gpu_check.training MODEL FOLDER DEVICE

Prints JSON: evaluations, those that failed, and bits per byte before and after two steps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

from darumeru.watch import DarumeruCallback


def main() -> None:
    """Train and evaluate."""
    folder, out, device = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    base: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    lora = LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"], ensure_weight_tying=True
    )
    wrapped = get_peft_model(base, lora)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    rows = torch.randint(6, 600, (8, 32), generator=torch.Generator().manual_seed(0)).tolist()
    trainer = Trainer(
        wrapped,
        TrainingArguments(
            output_dir=str(out), max_steps=2, per_device_train_batch_size=2, learning_rate=0.05, bf16=True,
            use_cpu=device == "cpu", report_to=[], disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],  # type: ignore[arg-type]
        processing_class=AutoTokenizer.from_pretrained(folder),
        data_collator=default_data_collator,
    )  # fmt: skip
    tasks = ("bpb_ru", "rwsd_tenth")
    evaluation = DarumeruCallback(every=2, runs=out / "runs", limit=1, tasks=tasks, num_fewshot=0).attach(trainer)
    trainer.train()
    key = "eval_darumeru/bpb_ru"
    bits = [entry[key] for entry in trainer.state.log_history if key in entry]
    print(json.dumps({"evaluations": len(bits), "failures": evaluation.failures, "bits": bits}))


if __name__ == "__main__":
    main()
