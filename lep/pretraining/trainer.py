"""transformers' Trainer for `lep pretrain`: our loss, optimizer groups, held-out measures and checkpoints.

A checkpoint is a plain model folder in the types of the original (`lep.model.checkpoint.write_checkpoint`; unchanged shards are
hard links), with the Trainer's state and, in `trained/`, the float32 values. It is written under another name and renamed
when it is whole. Of a model that is cut up among processes the first writes the same files as a single process does, so
that any number of them resumes from it.
"""

from __future__ import annotations

import math
import resource
import shutil
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments
from transformers.optimization import get_scheduler

from darumeru.errors import DarumeruError, NotFiniteError
from darumeru.files import read_json
from lep.measure.held_out import BITS, HeldOut
from lep.model.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from lep.model.sharding import ShardedTrainer, cut_state, gathered_state
from lep.pretraining.anchor import Anchor
from lep.pretraining.checkpoints import MASTERS, OPTIMIZER, SCHEDULER, UNFINISHED, seal, thin_out
from lep.pretraining.row_adamw import RowAdamW, UsedRows
from lep.pretraining.shared_map import SharedMap
from lep.pretraining.trainable import Trainable


@dataclass(frozen=True)
class Rates:
    """Learning rates of embedding, head, layers and norms, LoRA, and the maps that new rows share."""

    embedding: float
    head: float
    rest: float
    lora: float
    shared: float = 0.0


class PretrainTrainer(ShardedTrainer, Trainer):  # type: ignore[misc]
    """A Trainer of `Trainable` models that trains from one step of a schedule to another.

    Args:
        trainable: the model and what of it is trained.
        arguments: of transformers; its `max_steps` are those of the whole schedule.
        source: the folder that the model was loaded from.
        rates: learning rates.
        start: step at which this part of the schedule begins, with an optimizer of its own.
        stop: step at which it ends.
        held_out: texts to measure on.
        new_ids: the new tokens.
        anchor: pulls weights back, or None.
        shared: maps that move all new rows of a matrix together.
        characters: of a number of steps: how much text they read.
        saved: is called with the log when a checkpoint has been written, before older ones go.
        settings: further arguments of Trainer.
    """

    optimizer: Any
    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        trainable: Trainable,
        arguments: TrainingArguments,
        *,
        source: Checkpoint,
        rates: Rates,
        start: int,
        stop: int,
        held_out: HeldOut,
        new_ids: Collection[int] = (),
        anchor: Anchor | None = None,
        shared: Sequence[SharedMap] = (),
        characters: Callable[[int], int] = lambda _: 0,
        saved: Callable[[list[dict[str, float]]], object] = lambda _: None,
        **settings: Any,
    ) -> None:
        self.trainable, self.source, self.rates, self.start, self.stop = trainable, source, rates, start, stop
        self.held_out, self.new_ids, self.anchor, self.shared = held_out, new_ids, anchor, shared
        self._characters, self._saved = characters, saved
        embedding = trainable.model.get_input_embeddings()
        self.used = UsedRows(embedding.weight.shape[0], arguments.device, trainable.rows)
        self.peak_memory = 0
        self._saving = False
        self._sums: dict[tuple[int, ...], str] = {}
        self._trained_seconds, self._counted = 0.0, (0, 0.0)
        super().__init__(model=trainable.model, args=arguments, eval_dataset=[], **settings)

    # What is trained, and how.

    def create_optimizer(self, model: Any = None) -> Any:
        """AdamW in groups: embedding, head and the rest have rates of their own, token rows decay where they are used."""
        if self.optimizer is None:
            decayed = set(self.get_decay_parameter_names(self.trainable.model))
            # What is cut up and what never is are apart, also where nothing is, so that all resume from one state.
            groups: dict[tuple[float, float, float, bool], list[Any]] = {}
            for name, parameter in self.trainable.parameters.items():
                rate = self._rate(name)
                of_tokens = name in self.trainable.embedding or name in self.trainable.head
                rowwise = of_tokens and parameter.dim() == 2
                plain = not of_tokens and name in decayed
                decay, whole = self.args.weight_decay, self.trainable.stays_whole(name)
                groups.setdefault((rate, decay * plain, decay * rowwise, whole), []).append(parameter)
            if self.shared:
                groups.setdefault((self.rates.shared, 0.0, 0.0, True), []).extend(s.change for s in self.shared)
            self.optimizer = RowAdamW(
                [
                    {"params": members, "lr": rate, "weight_decay": plain, "row_decay": rowwise}
                    for (rate, plain, rowwise, _), members in groups.items()
                ],
                self.used,
                **({} if self.anchor is None else {"after": self.anchor.pull}),
                lr=self.rates.embedding,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
                fused=True,
            )
            for shared in self.shared:
                self.optimizer.register_step_pre_hook(lambda *_, shared=shared: shared.before_step())
                self.optimizer.register_step_post_hook(lambda *_, shared=shared: shared.after_step())
            self.optimizer.register_step_post_hook(lambda *_: self.trainable.follow())
        return self.optimizer

    def _rate(self, name: str) -> float:
        """Return the learning rate of a parameter."""
        trainable, rates = self.trainable, self.rates
        if name in trainable.embedding:
            return rates.embedding
        if name in trainable.head:
            return rates.head
        return rates.lora if trainable.adapter is not None and name in trainable.adapter.parameters else rates.rest

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule over the steps of this part."""
        if self.lr_scheduler is None:
            self.lr_scheduler = get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=optimizer or self.optimizer,
                num_warmup_steps=self.args.get_warmup_steps(self.stop - self.start),
                num_training_steps=self.stop - self.start,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass."""
        self.used.note(inputs["input_ids"])
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        # Called before every step of the optimizer, so that what is not a number never reaches the weights.
        norm = super()._get_grad_norm(model, grad_norm)
        if not math.isfinite(float(norm)):
            raise NotFiniteError(
                f"The loss or its gradient is not a finite number at step {self.state.global_step + 1}. The checkpoints "
                "before it are kept. Train with a lower learning rate, more warm-up steps or --dtype float32, in another "
                "output folder."
            )
        return norm

    # What is measured.

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Measure on the held-out texts; every process does so, for itself."""
        with self.trainable.autocast():
            found = self.held_out.measure(self.model, self.processing_class, self.new_ids)
        if self.sharded:  # no backward pass comes that would give back what was gathered
            self.model.reshard()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        if metrics:
            self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with text read and seconds of steps so far, tokens per second since the last time, and memory."""
        if "loss" in logs:
            tokens, seconds = self._counted
            spent = self._trained_seconds - seconds
            if spent > 0:
                logs["tokens_per_second"] = (self.state.num_input_tokens_seen - tokens) / spent
            self._counted = (self.state.num_input_tokens_seen, self._trained_seconds)
            self.peak_memory = peak_memory(self.args.device)
            logs["memory_gb"] = self.peak_memory / 1e9
        if "loss" in logs or f"eval_{BITS}" in logs:
            logs["characters"] = self._characters(self.state.global_step)
            logs["seconds"] = round(self._trained_seconds, 3)
        super().log(logs)

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        # The Trainer's own ways count filling, or mistake EOS for it.
        seen = inputs["tokens"].sum().to(self.args.device)
        self.state.num_input_tokens_seen += int(self.accelerator.gather(seen).sum())

    # Checkpoints.

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a plain model folder."""
        values = self.trainable.values(keep=self.args.should_save)
        if not self.args.should_save or output_dir is None:
            return
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)  # other processes put their random states there
        tensors = self.trainable.tensors(self.source, values)
        write_checkpoint(
            self.source, folder, replace=tensors, config=read_json(self.source.folder / "config.json"), link=True
        )
        self.trainable.save_masters(folder / MASTERS, values)

    def _get_output_dir(self, trial: Any) -> str:
        folder = Path(super()._get_output_dir(trial))
        return str(folder / UNFINISHED if self._saving else folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        place = Path(self.args.output_dir)
        name = f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            shutil.rmtree(place / UNFINISHED, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._saving = True
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, DarumeruError) as error:
            if self.args.should_save:
                shutil.rmtree(place / UNFINISHED, ignore_errors=True)
            if isinstance(error, DarumeruError):
                raise
            raise DarumeruError(
                f"The checkpoint of step {self.state.global_step} could not be written ({error}; "
                f"{shutil.disk_usage(place).free / 1e9:.2f} GB are free on the disk of {place}). Earlier checkpoints are "
                "kept: free some space and repeat the command, it resumes from the last one."
            ) from error
        finally:
            self._saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal(place / UNFINISHED / name, self._sums)
            shutil.rmtree(place / name, ignore_errors=True)
            (place / UNFINISHED / name).rename(place / name)
            (place / UNFINISHED).rmdir()
            self._saved(self.state.log_history)
            # LoRA is merged into the weights that this part of the schedule began with.
            thin_out(place, self.args.save_total_limit, self.start if self.trainable.adapter is not None else None)
        self.accelerator.wait_for_everyone()
        self.source = open_checkpoint(place / name)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self._begins(resume_from_checkpoint):
            # The model was loaded from this very checkpoint (with LoRA from where this part began): only the digits that
            # its type rounded off, and the adapter, are missing.
            self.trainable.load_masters(Path(resume_from_checkpoint) / MASTERS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._begins(checkpoint):
            return
        if not self.sharded:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state, scheduler = (
            torch.load(Path(checkpoint) / name, map_location="cpu", mmap=True, weights_only=True)
            for name in (OPTIMIZER, SCHEDULER)
        )
        self.optimizer.load_state_dict(cut_state(state, self.optimizer))
        self.lr_scheduler.load_state_dict(scheduler)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.sharded:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = gathered_state(self.optimizer, keep=self.args.should_save)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER)

    def _begins(self, checkpoint: str | Path) -> bool:
        """Return whether this part of the schedule begins at a checkpoint that another part ended with."""
        return Path(checkpoint).name == f"checkpoint-{self.start}"


def peak_memory(device: torch.device) -> int:
    """Most bytes that were in use: on the GPU, or of the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
