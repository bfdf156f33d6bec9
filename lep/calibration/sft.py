"""trl's SFTTrainer on rows that are packed here: chat examples, one row of a step at a time."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import DarumeruError
from lep.calibration.lora import quiet
from lep.calibration.rows import Step, filled_up
from lep.calibration.work import WHOLE, newest_checkpoint, step_of

if TYPE_CHECKING:
    from darumeru.evaluation import Progress
    from lep.calibration.chat import Example
    from lep.calibration.recipe import Recipe


def train(
    wrapped: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    steps: Sequence[Step],
    work: Path,
    resume: Path | None,
    recipe: Recipe,
    device: str,
    dtype: str,
    save_every: int,
    callbacks: Sequence[Any],
) -> Path:
    """Train; returns the last checkpoint, which holds the adapter."""
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from lep.model.sharding import ShardedTrainer

    class Trainer(ShardedTrainer, SFTTrainer):  # type: ignore[misc]
        """trl's trainer of a model that may be cut up."""

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    steps = [filled_up(step, processes) for step in steps]
    schedules = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
    arguments = SFTConfig(
        output_dir=str(work),
        max_steps=len(steps),
        # One row at a time; the rows of a step are accumulated. Only the last step may have fewer.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=len(steps[0]) // processes,
        train_sampling_strategy="sequential",
        packing=True,
        packing_strategy="bfd",
        max_length=recipe.max_length,
        dataset_kwargs={"skip_prepare_dataset": True},  # rendered and packed here
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type=schedules[recipe.schedule],
        warmup_steps=round(recipe.warmup * len(steps)),
        seed=recipe.seed,
        bf16=dtype == "bfloat16",
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        gradient_checkpointing=device == "cuda",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=save_every,
        save_total_limit=2,
        ddp_find_unused_parameters=False,
        ddp_timeout=24 * 3600,
        report_to="none",
        disable_tqdm=True,
    )
    with quiet():
        trainer = Trainer(
            model=wrapped,
            args=arguments,
            train_dataset=_rows(examples, steps),
            processing_class=tokenizer,
            callbacks=[_mark_whole(), *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume is not None else None)
    last = newest_checkpoint(work)
    if last is None or step_of(last) < len(steps):
        done = 0 if last is None else step_of(last)
        raise DarumeruError(
            f"The training was stopped after {done} of {len(steps)} steps (by a rule of its evaluation?)."
        )
    return last


def _mark_whole() -> Any:
    from transformers import TrainerCallback

    class MarkWhole(TrainerCallback):  # type: ignore[misc]
        """Marks a checkpoint when all its files are written."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            args.distributed_state.wait_for_everyone()  # each writes its random state
            if state.is_world_process_zero:
                (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
            args.distributed_state.wait_for_everyone()

    return MarkWhole()


def progress_callback(progress: Progress | None) -> Any:
    """Return a callback that tells `progress` how far the training is and ends it where the loss is no number."""
    from transformers import TrainerCallback

    class Tell(TrainerCallback):  # type: ignore[misc]
        """Tells how far the training is, and ends it where the loss is no number."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.on_step_end(args, state, control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(int(state.global_step), int(state.max_steps))

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not math.isfinite(float((logs or {}).get("loss", 0.0))):
                raise DarumeruError(f"The loss is no number at step {state.global_step}. Use a lower --learning-rate.")

    return Tell()


def keeps_apart(model: Any, examples: Sequence[Example]) -> bool:
    """Return whether examples in one row are computed as if each were alone, as they are packed for training.

    Rows carry positions that begin at 0 with every example and no padding mask; from these transformers masks attention
    between examples, in all kinds of attention that it has (flash attention is not needed). What does not go by that, a
    state-space layer for instance, is found here: another first example must leave the logits of the second alone.
    """
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    size = int(model.get_input_embeddings().weight.shape[0])
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    second = examples[0].ids[:32].tolist()
    logits = []
    for shift in (0, 1):
        first = [(7 * n + shift) % size for n in range(1, 25)]
        batch = collate([{"input_ids": first + second, "seq_lengths": [len(first), len(second)]}])
        del batch["labels"]
        batch = {key: value.to(model.device) if hasattr(value, "to") else value for key, value in batch.items()}
        with torch.inference_mode():
            logits.append(model(**batch, use_cache=False).logits[0, len(first) :].float())
    return bool(torch.allclose(logits[0], logits[1], rtol=0, atol=1e-5))


def _rows(examples: Sequence[Example], steps: Sequence[Step]) -> Any:
    """The rows in the order of training, as the data set that the trainer reads."""
    import datasets
    import numpy as np

    def rows() -> Iterator[dict[str, Any]]:
        for row in (row for step in steps for row in step):
            if not row:
                nothing = np.zeros(2, examples[0].ids.dtype)
                yield {"input_ids": nothing, "labels": nothing - 100, "seq_lengths": [2]}
                continue
            chosen = [examples[index] for index in row]
            ids = np.concatenate([e.ids for e in chosen])
            labels = np.where(np.concatenate([e.trained for e in chosen]), ids, -100)
            yield {"input_ids": ids, "labels": labels, "seq_lengths": [len(e.ids) for e in chosen]}

    return datasets.Dataset.from_list(list(rows()))


@contextmanager
def hushed() -> Iterator[None]:
    """The trainer's own notices off: ours say the same."""
    import transformers

    names = ("trl", "transformers", "accelerate", "datasets")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    bar = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bar:
            transformers.utils.logging.enable_progress_bar()
