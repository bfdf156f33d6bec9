"""Continued pre-training of a model in a new vocabulary: `lep pretrain`.

An output folder holds `pretrain.json` (what is trained, on what), `blocks/` (the corpus in tokens), `checkpoints/`,
`history.jsonl`, and, when all is done, the model and `lep.json`. The same command on the same folder resumes from the
newest checkpoint, with the same data in the same order.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json, write_jsonl
from darumeru.options import Option
from darumeru.processor import slow_here
from lep.model.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from lep.model.folders import folder_fingerprint
from lep.model.manifest import added_ids, read_manifest, write_manifest
from lep.model.processes import without_accelerate
from lep.model.untie import untied
from lep.options import Corpus, Model
from lep.pretraining.again import chooses_again
from lep.pretraining.arguments import is_sharded, training_arguments
from lep.pretraining.best import Choice
from lep.pretraining.checkpoints import UNFINISHED, best_checkpoint, check, checkpoints, note_best, thin_out
from lep.pretraining.claim import claim, claim_texts
from lep.pretraining.data import Texts
from lep.pretraining.measures import measures_of
from lep.pretraining.original import find_original, measure_original, need_original
from lep.pretraining.schedule import Part, schedule
from lep.pretraining.settings import PretrainSettings, settings_of

if TYPE_CHECKING:
    from lep.measure.held_out import HeldOut
    from lep.pretraining.data import Data
    from lep.pretraining.replay import MixedRows
    from lep.pretraining.shared_map import SharedMap
    from lep.pretraining.trainable import Trainable

STAGE = "pretrain"
_UNTIED = "untied"
_HIDDEN = "hidden"


def pretrain(
    model: Model,
    corpus: Corpus,
    output: Annotated[str | Path, Option("Folder of the training; the same command resumes where it stopped.")],
    *,
    held_out: Annotated[Sequence[str], Option("Texts to measure on, [NAME=]FILE; not trained on.", many="spread")] = (),
    original: Annotated[
        str | Path | None,
        Option("The model before the change of vocabulary.", default="found by lep.json where it lies beside"),
    ] = None,
    settings: PretrainSettings | None = None,
    force: Annotated[bool, Option("Begin anew in an output folder that holds something else.", flag="--force")] = False,
    warn: Callable[[str], None] = lambda _: None,
    blocks: Path | None = None,
    characters: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Train a model on a corpus and write it; returns the manifest. The same call resumes where it was interrupted.

    Causal language modelling, AdamW, the mean loss over the tokens of a step. Under `accelerate launch` every process
    calls it.

    Args:
        model: a model folder (or hub id) whose rows match its tokenizer, such as one from `lep.initialise`.
        corpus: texts, see `darumeru.data.texts.read_texts`.
        output: the folder of this training.
        held_out: texts to measure on, FILE or NAME=FILE.
        original: the model before the change of vocabulary, which limits in per cent are relative to.
        settings: how to train.
        force: begin anew in an output folder that holds something else.
        warn: receives one sentence for anything doubtful.
        blocks: where the tokenized corpus lies; in the output folder where None.
        characters: how much is read, see `Texts.open`; None for what the settings say.

    Raises:
        UserError: an empty corpus, a model without a row for each token, an output folder of another training.
        DarumeruError: the loss is not finite, the disk or the memory is full; checkpoints are kept.
    """
    settings = settings or settings_of()
    training = _Training(Path(output).absolute(), model, corpus, held_out, original, settings, warn, blocks, characters)
    return training.run(force)


class _Training:
    """One call of `pretrain`: its folders, and what it found out about its inputs."""

    def __init__(
        self,
        output: Path,
        model: str | Path,
        corpus: Sequence[str | Path],
        held_out: Sequence[str],
        original: str | Path | None,
        settings: PretrainSettings,
        warn: Callable[[str], None],
        blocks: Path | None,
        characters: Sequence[int] | None,
    ) -> None:
        from transformers import AutoTokenizer

        from lep.measure.held_out import HeldOut

        self.output, self.corpus, self.settings, self.warn = output, corpus, settings, warn
        self.sharded = is_sharded(settings)
        self.checkpoints = output / "checkpoints"
        self.blocks = blocks or output / "blocks"
        self.model = self.source = open_checkpoint(model)
        if settings.untie and not self.model.embeddings.tied:
            raise UserError(f"{self.model.folder.name} has a head of its own already; leave --untie out.")
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
        self.texts = Texts(corpus, self.tokenizer, settings)
        self.held_out: HeldOut = HeldOut.read(held_out, field=settings.field, characters=settings.held_out_characters)
        self.original, self.characters = original, characters
        self.choice = Choice.of(settings.keep_best, settings.within, self.held_out.pieces)
        self.before: dict[str, float] | None = None

    def run(self, force: bool) -> dict[str, Any]:
        """See `pretrain`."""
        from darumeru.record.run import exclusive

        arguments = training_arguments(self.settings, self.checkpoints, evaluates=bool(self.held_out.pieces))
        first = arguments.process_index == 0
        with arguments.main_process_first(local=False):
            done = claim(self.output, self._identity(), STAGE, model=self.model.folder, force=force, write=first)
        if done is not None and not chooses_again(
            done, self.settings, self.choice, texts=self.held_out.fingerprints, folder=self.checkpoints, warn=self.warn
        ):
            return done
        with exclusive(self.output) if first else nullcontext(), without_accelerate():
            data = self._prepare(arguments)
            if done is None:
                self._run(arguments, data)
            with arguments.main_process_first(local=False):
                if first:
                    return self._finish(data, again=done is not None)
            return read_manifest(self.output) or {}

    def _prepare(self, arguments: Any) -> Data:
        """Open the texts, and measure the original where the choice of a checkpoint looks at it."""
        with arguments.main_process_first(local=False):
            claim_texts(self.output, self.held_out.fingerprints, write=arguments.process_index == 0)
            data = self.texts.open(self.blocks, self.characters)
        if self.choice is not None and self.choice.relative:
            found = find_original(self.model.folder, self.original)
            self.before = None if found is None else measure_original(found, self.held_out, self.output, arguments)
            if found is None:
                self.warn(
                    "The model before the change of vocabulary is not found (--original MODEL names it): limits in per cent "
                    "are relative to step 0."
                )
        return data

    def _run(self, arguments: Any, data: Data) -> None:
        if self.settings.untie:
            with arguments.main_process_first(local=False):
                self.source = untied(self.model, self.output / _UNTIED)
        for doubt in data.doubts(self.held_out.pieces):
            self.warn(doubt)
        if arguments.use_cpu and arguments.bf16 and (slow := slow_here("bfloat16")):
            self.warn(slow)
        steps = arguments.max_steps = data.steps
        for _, newest in checkpoints(self.checkpoints)[-1:]:
            check(newest)
        ended = False
        for part in schedule(self.settings.train, steps):
            reached = checkpoints(self.checkpoints)
            if not ended and (not reached or reached[-1][0] < part.stop):
                ended = self._train(part, data, arguments, reached[-1] if reached else None)
                _free()  # after the names of `_train` are gone: its callbacks hold the trainer, and it the model

    def _config(self) -> Any:
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.source.folder).get_text_config()

    def _identity(self) -> dict[str, Any]:
        """What this training is: the same command has the same, and resumes."""
        return {
            "model": folder_fingerprint(self.model.folder),
            **self.texts.fingerprints(),
            "settings": self.settings.of_the_result(),
            **({"characters": list(self.characters)} if self.characters is not None else {}),
        }

    def _train(self, part: Part, data: Data, arguments: Any, reached: tuple[int, Path] | None) -> bool:
        """Train one part of the schedule from where it stands; True where a rule ended it early."""
        import torch
        from transformers import PrinterCallback

        from lep.model.loading import load_model
        from lep.pretraining.adapter import Lora
        from lep.pretraining.anchor import Anchor
        from lep.pretraining.blocks import Collator, start_token
        from lep.pretraining.callbacks import Bar, Clock, Flow, History, LossKernel, closing
        from lep.pretraining.hidden import has_dropout
        from lep.pretraining.trainable import check_forward, prepare
        from lep.pretraining.trainer import PretrainTrainer, Rates

        settings, rows = self.settings, data.rows
        lora = "lora" in part.what.split("+")
        if settings.quantize != "none" and {"all", "ends"} & {*part.what.split("+")}:
            raise UserError(
                f"--quantize {settings.quantize} is for frozen layers; --train {part.what} trains them. Take new-rows+lora "
                "or embeddings+lora."
            )
        source = open_checkpoint(reached[1]) if reached else self.source
        if lora and reached:  # checkpoints hold it merged
            source = open_checkpoint(self.checkpoints / f"checkpoint-{part.start}") if part.start else self.source
        compute = torch.bfloat16 if arguments.bf16 else torch.float32
        model = load_model(
            source.folder, compute, attention=settings.attention,
            quantize=settings.quantize, device=None if self.sharded else arguments.device,
        )  # fmt: skip
        trainable = prepare(model, part.what, source, new_ids=self.new_ids, compute=compute, lora=Lora.of(settings))
        trainable.tensors(source, trainable.values())  # can it be written back?
        check_forward(trainable, packing=settings.packing)
        if self.sharded:
            trainable.shard(arguments.device)
        passes = (part.stop - part.start) * settings.total_batch_size / rows.distinct
        if (
            part.what == "head"
            and settings.cache_hidden_gb
            and passes > 1
            and not trainable.tied
            and not has_dropout(model)
        ):
            trainable.hidden = _hidden_states(self.output, arguments, rows, settings, model, compute)
        clock, bar = Clock(), Bar(part.what)
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs: accelerate launch, not DataParallel
        arguments.eval_on_start = reached is None and bool(self.held_out.pieces)
        rate = settings.learning_rate
        trainer = PretrainTrainer(
            trainable,
            arguments,
            source=source,
            rates=Rates(
                rate,
                settings.head_learning_rate or rate,
                settings.rest_learning_rate or rate,
                settings.lora_learning_rate,
                settings.shared_learning_rate,
            ),
            start=part.start,
            stop=part.stop,
            held_out=self.held_out,
            new_ids=frozenset(self.new_ids),
            anchor=Anchor(trainable, self.source, settings.anchor, self.new_ids) if settings.anchor else None,
            shared=self._shared(trainable),
            characters=lambda step: sum(data.characters(step)),
            saved=self._note_best,
            train_dataset=rows,
            data_collator=Collator(start_token(self.tokenizer)),
            processing_class=self.tokenizer,
            callbacks=[clock],
        )
        clock.trainer = trainer
        trainer.remove_callback(PrinterCallback)
        self._evaluate_along_the_way(trainer)
        for callback in (
            LossKernel(trainable.cross_entropy),
            Flow(part.stop, measures=self.choice is not None),
            History(self.output / "history.jsonl"),
            bar,
        ):
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
            shutil.rmtree(self.output / _HIDDEN, ignore_errors=True)
        return step < part.stop

    def _shared(self, trainable: Trainable) -> list[SharedMap]:
        if not self.settings.shared_learning_rate:
            return []
        if not self.new_ids:
            raise UserError(
                f"--shared-learning-rate moves the rows of new tokens, and {self.model.folder.name} has none that are known "
                "(--new-from ROW names the first)."
            )
        from lep.pretraining.shared_map import shared_maps

        return shared_maps(trainable, need_original(self.model.folder, self.original), self.source.folder, self.new_ids)

    def _evaluate_along_the_way(self, trainer: Any) -> None:
        """Add the callbacks that obey `darumeru watch` and, where it was asked for, run the benchmark here.

        Raises:
            UserError: rules without a benchmark.
        """
        from darumeru.watch import DarumeruCallback, StopFileCallback

        settings = self.settings
        trainer.add_callback(StopFileCallback(self.checkpoints / "STOP", every=1))
        if settings.suite is None:
            if settings.stop_if or (settings.keep_best and self.choice is None):
                raise UserError(
                    "--stop-if and --keep-best look at a benchmark's scores: they need --suite. (--keep-best also takes "
                    "bits_per_byte_NAME of the --held-out texts.)"
                )
            return
        DarumeruCallback(
            settings.suite,
            every=settings.eval_every or settings.save_steps,
            data=settings.data,
            runs=self.output / "runs",
            tokenizer=self.tokenizer,
            rules=settings.stop_if,
            keep_best=settings.keep_best if self.choice is None else None,
            name=self.output.name,
            limit=settings.limit,
        ).attach(trainer)

    def _note_best(self, log: list[dict[str, Any]]) -> bool:
        return self.choice is None or note_best(self.checkpoints, self.choice, log, self.before)

    def _finish(self, data: Data, *, again: bool) -> dict[str, Any]:
        """Write the model beside its checkpoints, the manifest last; after a further choice every checkpoint stays."""
        step, last = checkpoints(self.checkpoints)[-1]
        all_of_it = read_json(last / "trainer_state.json")["log_history"]
        if not self._note_best(all_of_it):
            self.warn(
                f"No checkpoint keeps --within {', '.join(self.settings.within)}; the one that is least above is the result."
            )
        best = best_checkpoint(self.checkpoints) if self.settings.keep_best else None
        if best is not None:
            check(best)
        final: Checkpoint = open_checkpoint(best or last)
        for name in final.metadata:
            (self.output / name.name).unlink(missing_ok=True)  # of a run that was killed right here
        write_checkpoint(final, self.output, replace={}, config=read_json(final.folder / "config.json"), link=True)
        log = read_json(final.folder / "trainer_state.json")["log_history"]
        write_jsonl(self.output / "history.jsonl", all_of_it)
        settings = {
            **self.settings.of_the_result(),
            **self.settings.of_the_choice(),
            **({"stop_if": list(self.settings.stop_if)} if self.settings.stop_if else {}),
            "corpus": [str(c) if str(c).startswith("hub:") else Path(c).name for c in self.corpus],
            "held_out": list(self.held_out.pieces),
        }
        measures = {
            "steps": step,
            **({"stopped_before": data.steps} if step < data.steps else {}),
            **({"best_checkpoint": best.name} if best is not None else {}),
            **({"original": self.before} if self.before is not None else {}),
            **measures_of(log),
            **data.measures(step),
        }
        if not again:
            part = next(part for part in schedule(self.settings.train, data.steps) if step <= part.stop)
            spared = part.start if "lora" in part.what.split("+") else None
            thin_out(self.checkpoints, self.settings.save_total_limit, spared)
        for left in (self.output / _UNTIED, self.output / _HIDDEN, self.checkpoints / UNFINISHED):  # by a kill
            shutil.rmtree(left, ignore_errors=True)
        return write_manifest(
            self.output, STAGE, inputs={"model": self.model.folder}, settings=settings, measures=measures
        )


def _free() -> None:
    """Give back the memory of a trainer that nothing but its own cycles holds, before the next one is made."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _hidden_states(
    output: Path, arguments: Any, rows: MixedRows, settings: PretrainSettings, model: Any, compute: Any
) -> Any:
    from lep.pretraining.hidden import HiddenStates

    return HiddenStates(
        output / _HIDDEN / f"{arguments.process_index}.bin",
        rows=rows.distinct,
        width=settings.block_size,
        dim=model.get_input_embeddings().weight.shape[1],
        dtype=compute,
        limit=int(settings.cache_hidden_gb * 1e9),
    )
