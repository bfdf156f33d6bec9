"""Training on chat examples with LoRA: trl's SFTTrainer on rows that are packed here, merged into a plain folder."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from lep.calibration.chat import Example, read_chats, render_all
from lep.calibration.lora import add_lora, is_tied, quiet, trained_parameters
from lep.calibration.merge import load, merge, stored_tensors
from lep.calibration.recipe import Recipe, choose_recipe
from lep.calibration.rows import Step, deal
from lep.model.checkpoint import open_checkpoint
from lep.model.folders import folder_fingerprint, new_folder
from lep.model.manifest import write_manifest

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

_SETTINGS = "calibration.json"
_WHOLE = "whole"
"""The file that marks a checkpoint as whole: written when all of its other files are."""


def calibrate(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    recipe: str | Recipe = "self",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    save_every: int = 50,
    suite: str | None = None,
    eval_every: int = 50,
    eval_data: str = "mini",
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train a model on chat examples and write the merged model; returns the manifest.

    Only the assistant's tokens count; the loss of an optimizer step is the mean over those of all its examples. What is
    trained is kept and updated in float32. Checkpoints lie in `OUTPUT.training` until the output is there; the same call
    goes on from the newest whole one and computes the same numbers as if it had not been stopped.

    Args:
        model: the model to calibrate, folder or hub id, with a chat template.
        data: JSON lines with `messages`, as `make_data` writes them.
        output: the folder to write.
        recipe: `self`, `instruct`, or fields of your own.
        device: where to train; `auto` takes a GPU where there is one.
        dtype: of what is not trained; `auto` is bfloat16 on a GPU and float32 on a CPU.
        save_every: optimizer steps between checkpoints.
        suite: a suite of Darumeru to evaluate along the way.
        eval_every: optimizer steps between evaluations.
        eval_data: the bundle to evaluate on.
        force: replace an output folder that exists, and checkpoints of other settings.
        warn: receives one sentence for anything doubtful.
        progress: is told how many of the optimizer steps are done.
        changes: fields of the recipe to change, see `Recipe`.

    Raises:
        UserError: a setting that is not possible, a model without a chat template, data without a usable example,
            checkpoints of other settings.
        DarumeruError: the training diverged, or merging changed the model.
    """
    from darumeru.files import file_sha256
    from darumeru.inference.prompt import Limits, Prompter
    from darumeru.record.run import exclusive

    chosen = choose_recipe(recipe, changes)
    for package in ("trl", "peft"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"Calibration needs {package}: pip install 'darumeru[train]'.")
    folder = Path(output)
    work = folder.with_name(f"{folder.name}.training")
    if save_every < 1 or eval_every < 1:
        raise UserError("--save-every and --eval-every are numbers of steps, 1 or more.")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise UserError(f"The output folder {folder} is not empty. Name a new one, or add --force to replace it.")
    device, dtype = _place(device, dtype)
    source = open_checkpoint(model)
    tokenizer, ends, context = _tokenizer(source.folder)
    max_length = min(chosen.max_length, context or chosen.max_length)
    prompter = Prompter(tokenizer, "instruct", Limits(max_length, None))
    examples, left_out = render_all(prompter, read_chats(Path(data)), ends, max_length)
    if left_out.get("template", 0) > len(examples):
        warn("The chat template does not render most examples turn by turn; they are left out.")
    settings = {
        "recipe": recipe if isinstance(recipe, str) else "own",
        **chosen.model_dump(),
        "data": {"name": Path(data).name, "sha256": file_sha256(Path(data))},
        "dtype": dtype,
    }
    identity = {**settings, "model": folder_fingerprint(source.folder)}
    work.mkdir(parents=True, exist_ok=True)
    with exclusive(work), _hushed():
        _claim(work, identity, force)
        base = load(source.folder, dtype)
        tied = is_tied(base)
        isolated = keeps_apart(base, examples)
        if not isolated:
            warn(f"{source.architecture} lets packed examples see each other, so each gets a row of its own.")
        steps = deal(
            [len(e.ids) for e in examples],
            batch=chosen.batch,
            epochs=chosen.epochs,
            max_length=max_length,
            seed=chosen.seed,
            packed=isolated,
        )[: chosen.max_steps]
        wrapped = add_lora(base, chosen)
        tensors = stored_tensors(source, wrapped)
        trainable = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        whole = sorted({kind for _, kind in trained_parameters(wrapped)} - {"lora"})
        newest = newest_checkpoint(work)
        if newest is None or _step_of(newest) < len(steps):
            callbacks = [_progress_callback(progress)]
            if suite is not None:
                callbacks.append(_evaluation(suite, eval_every, eval_data, folder, source.folder))
            newest = _train(
                wrapped, tokenizer, examples, steps, work, newest, chosen, device, dtype, save_every, callbacks
            )
        log = read_json(newest / "trainer_state.json")["log_history"]
        del base, wrapped
        losses = [[int(entry["step"]), float(entry["loss"])] for entry in log if "loss" in entry]
        if not all(math.isfinite(loss) for _, loss in losses):
            raise DarumeruError("The loss is no number: the training diverged. Use a lower --learning-rate.")
        with new_folder(folder, inputs=[source.folder], force=force) as place:
            compared, sample_loss = merge(source, chosen, newest, place, tensors, examples)
            used = {index for step in steps for row in step for index in row}
            rows = [row for step in steps for row in step]
            manifest = write_manifest(
                place,
                "calibrate",
                inputs={"model": source.folder},
                settings=settings,
                measures={
                    "examples": len(examples),
                    "examples_seen": len(used),
                    "left_out": left_out,
                    "tokens": sum(len(examples[i].ids) for row in rows for i in row),
                    "trained_tokens": sum(int(examples[i].trained.sum()) for row in rows for i in row),
                    "steps": len(steps),
                    "rows": len(rows),
                    "packed": isolated,
                    "max_length": max_length,
                    "trained_parameters": trainable,
                    "trained_whole": ["embedding and head (tied)"] if tied and whole else whole,
                    "first_loss": losses[0][1],
                    "last_loss": losses[-1][1],
                    "sample_loss": asdict(sample_loss),
                    "largest_logit_difference": asdict(compared),
                    "losses": losses,
                },
            )
    shutil.rmtree(work)
    return manifest


def _place(device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("There is no GPU that PyTorch can use here. Use --device cpu.")
        if torch.cuda.device_count() > 1:
            raise UserError("Calibration uses one GPU; make one visible, for example with CUDA_VISIBLE_DEVICES=0.")
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" else "float32"
    return device, dtype


def _tokenizer(folder: Path) -> tuple[Any, frozenset[int], int | None]:
    """Tokenizer, token ids that end a turn, and the context's length.

    Raises:
        UserError: the model has no chat template.
    """
    from darumeru.inference.model import open_model

    model = open_model(folder)
    tokenizer = model.tokenizer()
    if not tokenizer.chat_template:
        raise UserError(f"{folder} has no chat template, so it is no model to chat with. Name an instruct model.")
    return tokenizer, model.eos_ids(tokenizer), model.context_len(tokenizer)


# -- the work folder --------------------------------------------------------------------------------------------------


def _claim(work: Path, identity: dict[str, Any], force: bool) -> None:
    """See to it that the checkpoints in `work` are those of these settings.

    Raises:
        UserError: they are of others (and not `force`).
    """
    from darumeru.files import write_json

    file = work / _SETTINGS
    old = read_json(file) if file.is_file() else None
    for path in work.glob("checkpoint-*"):
        if not (path / _WHOLE).is_file():
            shutil.rmtree(path)  # a kill came while it was written
    if old == identity:
        return
    if old is not None and not force:
        differ = sorted(key for key in identity.keys() | old.keys() if identity.get(key) != old.get(key))
        raise UserError(
            f"{work} holds the checkpoints of a calibration with other settings ({', '.join(differ)}). "
            "Repeat its command, name another output, or add --force to begin anew."
        )
    for path in work.glob("checkpoint-*"):
        shutil.rmtree(path)
    write_json(file, identity)


def newest_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    found = [path for path in work.glob("checkpoint-*") if (path / _WHOLE).is_file()]
    return max(found, key=_step_of, default=None)


def _step_of(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1


# -- packed rows ------------------------------------------------------------------------------------------------------


def keeps_apart(model: Any, examples: Sequence[Example]) -> bool:
    """Whether examples in one row are computed as if each were alone, as they are packed for training.

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
            chosen = [examples[index] for index in row]
            ids = np.concatenate([e.ids for e in chosen])
            labels = np.where(np.concatenate([e.trained for e in chosen]), ids, -100)
            yield {"input_ids": ids, "labels": labels, "seq_lengths": [len(e.ids) for e in chosen]}

    return datasets.Dataset.from_list(list(rows()))


# -- trl --------------------------------------------------------------------------------------------------------------


def _train(
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

    schedules = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
    arguments = SFTConfig(
        output_dir=str(work),
        max_steps=len(steps),
        # One row at a time; the rows of a step are accumulated. Only the last step may have fewer.
        per_device_train_batch_size=1,
        gradient_accumulation_steps=len(steps[0]),
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
        report_to="none",
        disable_tqdm=True,
    )
    with quiet():
        trainer = SFTTrainer(
            model=wrapped,
            args=arguments,
            train_dataset=_rows(examples, steps),
            processing_class=tokenizer,
            callbacks=[_mark_whole(), *callbacks],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(resume) if resume is not None else None)
    last = newest_checkpoint(work)
    if last is None or _step_of(last) < len(steps):
        done = 0 if last is None else _step_of(last)
        raise DarumeruError(
            f"The training was stopped after {done} of {len(steps)} steps (by a rule of its evaluation?)."
        )
    return last


def _mark_whole() -> Any:
    from transformers import TrainerCallback

    class MarkWhole(TrainerCallback):  # type: ignore[misc]
        """Marks a checkpoint when all its files are written."""

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()

    return MarkWhole()


def _progress_callback(progress: Progress | None) -> Any:
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


def _evaluation(suite: str, every: int, data: str, folder: Path, model: Path) -> Any:
    """Darumeru's evaluation during training; its runs lie beside the output, in `OUTPUT.runs`."""
    callback = importlib.import_module("darumeru.watch").DarumeruCallback
    tokenizer, _, _ = _tokenizer(model)  # one of its own: the trainer changes the padding token of its
    runs = folder.with_name(f"{folder.name}.runs")
    return callback(suite, every=every, data=data, runs=runs, tokenizer=tokenizer, name=folder.name)


@contextmanager
def _hushed() -> Iterator[None]:
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
