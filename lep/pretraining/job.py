"""Continued pre-training of a model in a new vocabulary: `lep pretrain`.

An output folder holds `pretrain.json` (what is trained, on what), `blocks/` (the corpus in tokens), `checkpoints/`,
`history.jsonl`, and, when all is done, the model and `lep.json`. The same command on the same folder goes on from the
newest checkpoint, with the same data in the same order.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json, write_json
from lep.model.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from lep.model.folders import folder_fingerprint
from lep.model.manifest import added_ids, read_manifest, write_manifest
from lep.tokenizer.scripts import scripts_of

if TYPE_CHECKING:
    from lep.measure.held_out import HeldOut
    from lep.pretraining.blocks import Blocks, TrainingRows

STAGE = "pretrain"
_IDENTITY = "pretrain.json"
_FEW = 0.25
"""A corpus with a smaller share of letters in the expected scripts is doubted."""


class PretrainSettings(BaseModel):
    """How to train. Names are those of transformers' TrainingArguments where it has them; defaults are the paper's.

    Attributes:
        train: what is trained, `embeddings`, `head`, `new-rows`, `embeddings+ends` or `all`; or a schedule such as
            `head:0.1,embeddings`, each part with its share of the steps, the last with the rest.
        learning_rate: of the embedding; 2e-4 is what the paper took for LLaMa-3-8B (1e-4 for Mistral-7B).
        head_learning_rate: of an untied head; `learning_rate` where None.
        rest_learning_rate: of layers and norms; `learning_rate` where None.
        total_batch_size: rows of a step, over all processes and accumulated passes.
        per_device_train_batch_size: rows of a pass on a device.
        block_size: most tokens of a block, and of a row.
        packing: several short blocks in a row, kept apart by masks; otherwise one each, filled up.
        weight_decay: of AdamW; token rows decay only in steps whose batch holds their token.
        max_steps: steps instead of epochs, where above 0.
        save_steps: steps between checkpoints.
        save_total_limit: checkpoints to keep; all where None (only the two newest can be resumed from).
        eval_steps: steps between measurements on held-out text; `save_steps` where None.
        held_out_characters: characters of each held-out text that are read.
        dtype: of computation; trained weights are float32 in any case. auto: bfloat16 on a GPU that has it.
        attention: transformers' attention implementation; its own choice where None.
        cache_hidden_gb: disk for hidden states of the parts of a schedule that train an untied head alone.
        new_from: first new row, where no lep.json tells.
        lang: language of the corpus, for a warning; `scripts` instead of it.
        suite: benchmark to run along the way, every `eval_every` steps, on the bundle `data`.
        stop_if: rules that end the training, see `darumeru.watch`.
        keep_best: measure of the suite by which the best checkpoint is kept and becomes the result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str = "embeddings"
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    head_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    rest_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    total_batch_size: int = Field(256, ge=1)
    per_device_train_batch_size: int = Field(8, ge=1)
    block_size: int = Field(1024, ge=8)
    packing: bool = True
    weight_decay: float = Field(0.1, ge=0, allow_inf_nan=False)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(100, ge=0)
    num_train_epochs: float = Field(1.0, gt=0, allow_inf_nan=False)
    max_steps: int = -1
    max_grad_norm: float = Field(1.0, ge=0, allow_inf_nan=False)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    seed: int = Field(0, ge=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["eager", "sdpa", "flex_attention"] | None = None
    gradient_checkpointing: bool = False
    cache_hidden_gb: float = Field(0.0, ge=0)
    field: str = "text"
    lang: str = "ru"
    scripts: tuple[str, ...] = ()
    new_from: int | None = Field(None, ge=0)
    save_steps: int = Field(500, ge=1)
    save_total_limit: int | None = Field(None, ge=2)
    eval_steps: int | None = Field(None, ge=1)
    logging_steps: int = Field(10, ge=1)
    held_out_characters: int = Field(50_000, ge=1)
    report_to: tuple[str, ...] = ()
    suite: str | None = None
    eval_every: int | None = Field(None, ge=1)
    data: str = "mini"
    limit: int | None = Field(None, ge=1)
    stop_if: tuple[str, ...] = ()
    keep_best: str | None = None

    def of_the_result(self) -> dict[str, Any]:
        """The settings that the trained weights depend on; the others may change when a training goes on."""
        free = {"save_steps", "save_total_limit", "eval_steps", "logging_steps", "held_out_characters", "report_to",
                "suite", "eval_every", "data", "limit", "stop_if", "keep_best", "cache_hidden_gb", "device"}  # fmt: skip
        return self.model_dump(mode="json", exclude=free)


def settings_of(**values: Any) -> PretrainSettings:
    """Settings from options.

    Raises:
        UserError: the first value that is not allowed, with what is.
    """
    try:
        settings = PretrainSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option} {first['input']!r} is not allowed: {first['msg'].lower()}.") from None
    parse_schedule(settings.train)
    return settings


@dataclass(frozen=True)
class Part:
    """A part of a schedule: what is trained, from which step to which (exclusive)."""

    what: str
    start: int
    stop: int


def parse_schedule(text: str) -> list[tuple[str, float]]:
    """`head:0.1,embeddings` as [("head", 0.1), ("embeddings", 0.9)].

    Raises:
        UserError: an unknown name, or shares that do not fit.
    """
    from lep.pretraining.trainable import TRAINABLE

    parts: list[tuple[str, float]] = []
    named = text.split(",")
    left = 1.0
    for number, part in enumerate(named):
        what, colon, share = part.strip().partition(":")
        if what not in TRAINABLE:
            raise UserError(
                f"--train {what!r} is unknown; choose among {', '.join(TRAINABLE)}, or head:0.1,embeddings."
            )
        last = number == len(named) - 1
        if bool(colon) == last or (colon and not re.fullmatch(r"0?\.\d+", share)) or (colon and float(share) <= 0):
            raise UserError(
                f"--train {text!r} is no schedule: every part but the last has its share of the steps, "
                "such as head:0.1,embeddings."
            )
        parts.append((what, left if last else float(share)))
        left -= 0.0 if last else float(share)
        if left <= 1e-9 and not last:
            raise UserError(f"--train {text!r} leaves no steps for its last part.")
    return parts


def schedule(train: str, steps: int) -> list[Part]:
    """The parts of a schedule over so many steps; each has at least one.

    Raises:
        UserError: there are fewer steps than parts.
    """
    parts = parse_schedule(train)
    if steps < len(parts):
        raise UserError(f"--train {train!r} has {len(parts)} parts and the training {steps} steps. Give it more text.")
    result: list[Part] = []
    done = 0.0
    for number, (what, share) in enumerate(parts):
        done += share
        start = result[-1].stop if result else 0
        rest = len(parts) - number - 1
        stop = steps if not rest else min(max(round(done * steps), start + 1), steps - rest)
        result.append(Part(what, start, stop))
    return result


def pretrain(
    model: str | Path,
    corpus: Sequence[str | Path],
    output: str | Path,
    *,
    held_out: Sequence[str] = (),
    settings: PretrainSettings | None = None,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
    blocks: Path | None = None,
) -> dict[str, Any]:
    """Train a model on a corpus and write it; returns the manifest. The same call goes on where it was interrupted.

    Causal language modelling, AdamW, the mean loss over the tokens of a step. Under `accelerate launch` every process
    calls it.

    Args:
        model: a model folder (or hub id) whose rows match its tokenizer, such as one from `lep.initialise`.
        corpus: texts, see `lep.corpus.read.read_texts`.
        output: the folder of this training.
        held_out: texts to measure on, FILE or NAME=FILE.
        settings: how to train.
        force: begin anew in an output folder that holds something else.
        warn: receives one sentence for anything doubtful.
        blocks: where the tokenized corpus lies; in the output folder where None.

    Raises:
        UserError: an empty corpus, a model without a row for each token, an output folder of another training.
        DarumeruError: the loss is not finite, the disk or the memory is full; checkpoints are kept.
    """
    from darumeru.errors import DarumeruError

    settings = settings or settings_of()
    try:
        return _Training(Path(output).absolute(), model, corpus, held_out, settings, warn, blocks).run(force)
    except DarumeruError as error:
        raise DarumeruError(str(error)) from error


class _Training:
    """One call of `pretrain`: its folders, and what it found out about its inputs."""

    def __init__(
        self,
        output: Path,
        model: str | Path,
        corpus: Sequence[str | Path],
        held_out: Sequence[str],
        settings: PretrainSettings,
        warn: Callable[[str], None],
        blocks: Path | None,
    ) -> None:
        from transformers import AutoTokenizer

        from lep.measure.held_out import HeldOut

        self.output, self.corpus, self.settings, self.warn = output, corpus, settings, warn
        self.checkpoints = output / "checkpoints"
        self.blocks = blocks or output / "blocks"
        self.source = open_checkpoint(model)
        if output.exists() and output.samefile(self.source.folder):
            raise UserError(
                f"The output folder {output} is the model itself; inputs are never changed. Name another one."
            )
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.source.folder)
        rows, tokens = self.source.embeddings.rows, len(self.tokenizer)
        if rows < tokens:
            raise UserError(
                f"{self.source.folder.name} has {rows} rows for {tokens} tokens. Give the model the vocabulary with "
                "`lep init` first."
            )
        longest = getattr(self._config(), "max_position_embeddings", None)
        if longest is not None and settings.block_size > longest:
            raise UserError(
                f"--block-size {settings.block_size} is longer than the model's context of {longest} tokens."
            )
        first = settings.new_from
        known = added_ids(read_manifest(self.source.folder))
        self.new_ids = list(range(first, tokens)) if first is not None else [i for i in known if i < rows]
        self.scripts = scripts_of(settings.lang, settings.scripts)
        self.held_out: HeldOut = HeldOut.read(held_out, field=settings.field, characters=settings.held_out_characters)

    def run(self, force: bool) -> dict[str, Any]:
        """See `pretrain`."""
        from darumeru.record.run import exclusive

        arguments = self._arguments()
        first = arguments.process_index == 0
        with arguments.main_process_first(local=False):
            done = self._claim(force, write=first)
        if done is not None:
            return done
        with exclusive(self.output) if first else nullcontext():
            return self._run(arguments)

    def _run(self, arguments: Any) -> dict[str, Any]:
        from lep.pretraining.blocks import TrainingRows, open_blocks

        with arguments.main_process_first(local=False):
            settings = self.settings
            blocks = open_blocks(
                self.corpus, self.tokenizer, self.blocks, block_size=settings.block_size, field=settings.field,
                scripts=self.scripts,
            )  # fmt: skip
        rows = TrainingRows(blocks, block_size=settings.block_size, packing=settings.packing, seed=settings.seed)
        epochs = math.ceil(len(rows.rows) * settings.num_train_epochs)
        batch = settings.total_batch_size
        steps = settings.max_steps if settings.max_steps > 0 else math.ceil(epochs / batch)
        rows.length = steps * batch if settings.max_steps > 0 else epochs
        self._doubt(blocks, steps)
        arguments.max_steps = steps

        from lep.pretraining.trainer import checkpoints

        ended = False
        for part in schedule(settings.train, steps):
            reached = checkpoints(self.checkpoints)
            if not ended and (not reached or reached[-1][0] < part.stop):
                ended = self._train(part, rows, arguments, reached[-1] if reached else None)
        with arguments.main_process_first(local=False):
            if arguments.process_index == 0:
                return self._finish(blocks, steps)
        return read_manifest(self.output) or {}

    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.source.folder).get_text_config()

    def _arguments(self) -> Any:
        import importlib.util

        import torch
        from transformers import TrainingArguments

        if importlib.util.find_spec("accelerate") is None:
            raise UserError("Training needs the package accelerate: pip install 'darumeru[train]'.")
        settings = self.settings
        share = settings.per_device_train_batch_size * int(os.environ.get("WORLD_SIZE", "1"))
        if settings.total_batch_size % share:
            raise UserError(
                f"--total-batch-size {settings.total_batch_size} is no multiple of {share}, the rows of one pass over all "
                "processes. Change it or --per-device-train-batch-size."
            )
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise UserError("--device cuda: there is no GPU here. Leave it out to train on the CPU.")
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        auto = on_gpu and torch.cuda.is_bf16_supported()
        return TrainingArguments(
            output_dir=str(self.checkpoints),
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
            eval_strategy="steps" if self.held_out.pieces else "no",
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

    def _claim(self, force: bool, write: bool) -> dict[str, Any] | None:
        """Make the output folder this training's own; the manifest, where the training is done already.

        Raises:
            UserError: the folder is another's.
        """
        from lep.pretraining.blocks import blocks_fingerprint

        settings = self.settings
        wanted = {
            "model": folder_fingerprint(self.source.folder),
            "corpus": blocks_fingerprint(
                self.corpus, self.tokenizer, block_size=settings.block_size, field=settings.field, scripts=self.scripts
            ),
            "settings": settings.of_the_result(),
        }
        path = self.output / _IDENTITY
        if self.output.is_dir() and any(self.output.iterdir()):
            found = read_json(path) if path.is_file() else None
            if found == wanted:
                manifest = read_manifest(self.output)
                return manifest if manifest is not None and manifest["stage"] == STAGE else None
            if not force:
                raise UserError(
                    f"{_difference(self.output, found, wanted)} Name another folder, or add --force to begin anew."
                )
            if write:
                if self.source.folder.resolve().is_relative_to(self.output):
                    raise UserError(
                        f"The model lies inside the output folder {self.output}, so --force would delete it."
                    )
                shutil.rmtree(self.output)
        if write:
            self.output.mkdir(parents=True, exist_ok=True)
            write_json(path, wanted)
        return None

    def _doubt(self, blocks: Blocks, steps: int) -> None:
        counts, settings = blocks.counts, self.settings
        if self.scripts and counts.in_scripts < _FEW:
            self.warn(
                f"Only {counts.in_scripts:.1%} of the corpus's letters are {' or '.join(self.scripts)}. Is it the right "
                "corpus? (--lang and --scripts say what is expected.)"
            )
        if counts.left_out > 0.1:
            self.warn(
                f"{counts.left_out:.0%} of the corpus lie in paragraphs beyond --block-size {settings.block_size} and are "
                "left out: blocks begin at paragraphs (lines). Break long lines up, or take longer blocks."
            )
        if settings.warmup_steps >= steps:
            self.warn(f"The training has {steps} steps and --warmup-steps {settings.warmup_steps}: it never gets warm.")
        if not self.held_out.pieces:
            self.warn("Without --held-out, bits per byte are not measured.")

    def _train(self, part: Part, rows: TrainingRows, arguments: Any, reached: tuple[int, Path] | None) -> bool:
        """Train one part of the schedule from where it stands; True where a rule ended it early."""
        import torch
        from transformers import AutoModelForCausalLM, PrinterCallback

        from lep.pretraining.blocks import Collator, start_token
        from lep.pretraining.trainable import check_forward, prepare
        from lep.pretraining.trainer import Bar, Clock, Flow, History, PretrainTrainer, Rates, closing

        settings = self.settings
        # accelerate has FSDP on accelerators only.
        sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true" and arguments.device.type != "cpu"
        if sharded and part.what == "new-rows":
            raise UserError("--train new-rows does not work under FSDP: its matrices are few, so take DDP.")
        if sharded and settings.weight_decay:
            self.warn("Under FSDP, token rows get no weight decay: a shard does not know which rows a batch used.")
        source = open_checkpoint(reached[1]) if reached else self.source
        compute = torch.bfloat16 if arguments.bf16 else torch.float32
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.folder, dtype=torch.float32 if sharded else compute, attn_implementation=settings.attention
        )
        if not sharded:
            model.to(arguments.device)
        trainable = prepare(model, part.what, source, new_ids=self.new_ids, compute=compute, whole=sharded)
        trainable.tensors(source)  # can it be written back?
        check_forward(trainable, packing=settings.packing)
        passes = (part.stop - part.start) * settings.total_batch_size / len(rows.rows)
        if part.what == "head" and settings.cache_hidden_gb and passes > 1 and not trainable.tied and not _drops(model):
            trainable.hidden = _hidden_states(self.output, arguments, rows, settings, model, compute)
        clock, bar = Clock(), Bar(part.what)
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs: accelerate launch, not DataParallel
        arguments.eval_on_start = reached is None and bool(self.held_out.pieces)
        rate = settings.learning_rate
        trainer = PretrainTrainer(
            trainable,
            arguments,
            source=source,
            rates=Rates(rate, settings.head_learning_rate or rate, settings.rest_learning_rate or rate),
            start=part.start,
            stop=part.stop,
            held_out=self.held_out,
            new_ids=frozenset(self.new_ids),
            train_dataset=rows,
            data_collator=Collator(start_token(self.tokenizer)),
            processing_class=self.tokenizer,
            callbacks=[clock],
        )
        clock.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        self._evaluate_along_the_way(trainer)
        for callback in (Flow(part.stop), History(self.output / "history.jsonl"), bar):
            trainer.add_callback(callback)
        with closing([bar]):
            try:
                trainer.train(resume_from_checkpoint=str(reached[1]) if reached else None)
            except torch.OutOfMemoryError as error:
                raise DarumeruError(
                    "The GPU's memory is full. Use a smaller --per-device-train-batch-size (the total batch stays) or "
                    "--gradient-checkpointing; checkpoints are kept."
                ) from error
            step = int(trainer.state.global_step)
            if not (self.checkpoints / f"checkpoint-{step}").is_dir():
                trainer._save_checkpoint(trainer.model, None)
        if trainable.hidden is not None:
            shutil.rmtree(self.output / "hidden", ignore_errors=True)
        del trainer, trainable, model
        gc.collect()
        return step < part.stop

    def _evaluate_along_the_way(self, trainer: Any) -> None:
        """Add the callbacks that obey `darumeru watch` and, where it was asked for, run the benchmark here.

        Raises:
            UserError: rules without a benchmark.
        """
        from darumeru.watch import DarumeruCallback, StopFileCallback

        settings = self.settings
        trainer.add_callback(StopFileCallback(self.checkpoints / "STOP", every=1))
        if settings.suite is None:
            if settings.stop_if or settings.keep_best:
                raise UserError("--stop-if and --keep-best look at a benchmark's scores: they need --suite.")
            return
        DarumeruCallback(
            settings.suite,
            every=settings.eval_every or settings.save_steps,
            data=settings.data,
            runs=self.output / "runs",
            tokenizer=self.tokenizer,
            rules=settings.stop_if,
            keep_best=settings.keep_best,
            name=self.output.name,
            limit=settings.limit,
        ).attach(trainer)

    def _finish(self, blocks: Blocks, steps: int) -> dict[str, Any]:
        """Write the model beside its checkpoints, the manifest last."""
        from lep.pretraining.trainer import best_checkpoint, checkpoints

        step, last = checkpoints(self.checkpoints)[-1]
        best = best_checkpoint(self.checkpoints) if self.settings.keep_best else None
        final: Checkpoint = open_checkpoint(best or last)
        for name in final.metadata:
            (self.output / name.name).unlink(missing_ok=True)  # of a run that was killed right here
        write_checkpoint(final, self.output, replace={}, config=read_json(final.folder / "config.json"), link=True)
        log, all_of_it = (read_json(f / "trainer_state.json")["log_history"] for f in (final.folder, last))
        (self.output / "history.jsonl").write_text("".join(json.dumps(e) + "\n" for e in all_of_it), encoding="utf-8")
        settings = {
            **self.settings.of_the_result(),
            "corpus": [str(c) if str(c).startswith("hub:") else Path(c).name for c in self.corpus],
            "held_out": list(self.held_out.pieces),
        }
        measures = {
            "steps": step,
            **({"stopped_before": steps} if step < steps else {}),
            **({"best_checkpoint": best.name} if best is not None else {}),
            **measures_of(log),
            "blocks": {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(blocks.counts).items()},
        }
        return write_manifest(
            self.output, STAGE, inputs={"model": self.source.folder}, settings=settings, measures=measures
        )


def measures_of(log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a Trainer's `log_history` comes to: last loss, tokens, speed, memory, held-out measures before and after."""
    result: dict[str, Any] = {}
    losses = [entry for entry in log if "loss" in entry]
    if losses:
        last = losses[-1]
        result = {"loss": last["loss"], "tokens": last["num_input_tokens_seen"]}
        speeds = sorted(entry["tokens_per_second"] for entry in losses if "tokens_per_second" in entry)
        if speeds:
            result["tokens_per_second"] = round(speeds[len(speeds) // 2], 1)
        result["peak_memory_gb"] = round(max(entry["memory_gb"] for entry in losses), 3)
    evaluations = [entry for entry in log if any(key.startswith("eval_bits_per_byte") for key in entry)]
    for key in evaluations[0] if evaluations else ():
        if key.startswith("eval_"):
            result[key.removeprefix("eval_")] = {"before": evaluations[0][key], "after": evaluations[-1][key]}
    return result


def _difference(output: Path, found: Any, wanted: dict[str, Any]) -> str:
    if found is None:
        held = (
            "checkpoints of a run that this command did not begin" if (output / "checkpoints").exists() else "something"
        )
        return f"The output folder {output} holds {held}."
    there, here = found["settings"], wanted["settings"]
    changed = [f"{key} {there.get(key)!r} there, {here[key]!r} now" for key in here if there.get(key) != here[key]]
    changed += [f"another {key}" for key in ("model", "corpus") if found[key] != wanted[key]]
    return f"The output folder {output} holds a training with other settings ({'; '.join(changed)})."


def _hidden_states(
    output: Path, arguments: Any, rows: TrainingRows, settings: PretrainSettings, model: Any, compute: Any
) -> Any:
    from lep.pretraining.hidden import HiddenStates

    return HiddenStates(
        output / "hidden" / f"{arguments.process_index}.bin",
        rows=len(rows.rows),
        width=settings.block_size,
        dim=model.get_input_embeddings().weight.shape[1],
        dtype=compute,
        limit=int(settings.cache_hidden_gb * 1e9),
    )


def _drops(model: Any) -> bool:
    """Whether hidden states differ each time because of dropout."""
    from torch import nn

    config = model.config.get_text_config()
    return bool(getattr(config, "attention_dropout", 0.0)) or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
    )


__all__ = ["Part", "PretrainSettings", "measures_of", "parse_schedule", "pretrain", "schedule", "settings_of"]
