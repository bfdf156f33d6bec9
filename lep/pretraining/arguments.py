"""Settings of `lep pretrain` as transformers' TrainingArguments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from darumeru.errors import UserError
from lep.model.processes import is_asked

if TYPE_CHECKING:
    from transformers import TrainingArguments

    from lep.pretraining.settings import PretrainSettings


def is_sharded(settings: PretrainSettings) -> bool:
    """Return whether the model is cut up among processes, by FSDP.

    Raises:
        UserError: that does not go with other settings, or with how the processes were started.
    """
    if not is_asked(settings.fsdp):
        return False
    refused = {
        "--quantize": (settings.quantize != "none", "quantized weights are not cut up. Take DDP (leave FSDP out)"),
        "--suite": (
            settings.suite is not None,
            "no process has the whole model. Evaluate its checkpoints: darumeru watch",
        ),
        "--cache-hidden-gb": (
            settings.cache_hidden_gb > 0,
            "all processes have to compute the layers together. Leave it out",
        ),
    }
    for option, (given, reason) in refused.items():
        if given:
            raise UserError(f"{option} does not work under FSDP: {reason}.")
    return True


def training_arguments(settings: PretrainSettings, checkpoints: Path, *, evaluates: bool) -> TrainingArguments:
    """Return transformers' arguments for these settings; `max_steps` is set when the data has been counted.

    Args:
        settings: how to train.
        checkpoints: folder of the checkpoints.
        evaluates: whether there is held-out text to measure on.

    Raises:
        UserError: accelerate or a GPU is missing, or the total batch size does not divide over the processes.
    """
    import importlib.util

    import torch
    from transformers import TrainingArguments

    if importlib.util.find_spec("accelerate") is None:
        raise UserError("Training needs the package accelerate: pip install 'darumeru[train]'.")
    share = settings.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
    if settings.total_batch_size % share:
        raise UserError(
            f"--total-batch-size {settings.total_batch_size} is no multiple of {share}, the rows of one pass over all "
            "processes. Change it or --per-device-train-batch-size."
        )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: there is no GPU here. Leave it out to train on the CPU.")
    on_gpu = settings.device != "cpu" and torch.cuda.is_available()
    # Not what a GPU without bfloat16 (Turing, Volta) emulates, many times slower than float32.
    auto = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.total_batch_size // share,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        adam_beta1=settings.adam_beta1,
        adam_beta2=settings.adam_beta2,
        adam_epsilon=settings.adam_epsilon,
        bf16=settings.dtype == "bfloat16" or (settings.dtype == "auto" and auto),
        gradient_checkpointing=settings.gradient_checkpointing,
        use_cpu=not on_gpu,
        seed=settings.seed,
        save_steps=settings.save_steps,
        save_total_limit=settings.save_total_limit,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_steps or settings.save_steps,
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="all",
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",
        dataloader_pin_memory=on_gpu,
        ddp_find_unused_parameters=False,
        # Tokenizing a large corpus takes the first process longer than the others usually wait.
        ddp_timeout=24 * 3600,
    )
