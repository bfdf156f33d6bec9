"""Training on chat examples with LoRA, merged into a plain folder."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.files import is_empty, read_json, sibling
from darumeru.options import Option
from darumeru.processor import slow_here
from lep.calibration.chat import Writers, read_chats, render_all
from lep.calibration.lora import add_lora, is_tied, shard_frozen, trained_parameters
from lep.calibration.merge import merge, stored_tensors
from lep.calibration.recipe import Recipe, choose_recipe
from lep.calibration.rows import deal
from lep.calibration.sft import hushed, keeps_apart, progress_callback, train
from lep.calibration.work import claim, newest_checkpoint, step_of
from lep.model.checkpoint import open_checkpoint
from lep.model.folders import folder_fingerprint, new_folder
from lep.model.loading import load_model
from lep.model.manifest import read_manifest, write_manifest
from lep.model.processes import is_asked, without_accelerate
from lep.options import Force, Model, Output

if TYPE_CHECKING:
    from darumeru.evaluation import Progress


def calibrate(
    model: Model,
    data: Annotated[str | Path, Option("Chat examples (.jsonl), as lep calibrate data writes them.")],
    output: Output,
    *,
    recipe: Annotated[str | Recipe, Option("self or instruct: the paper's settings.")] = "self",
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where to train.")] = "auto",
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], Option("Of what is not trained.")] = "auto",
    fsdp: Annotated[
        bool,
        Option(
            "Cut what is not trained up among the processes (FSDP2); otherwise each has all of it.",
            flag="--fsdp",
            decides=False,
        ),
    ] = False,
    save_every: Annotated[int, Option("Steps between checkpoints.")] = 50,
    suite: Annotated[str | None, Option("Benchmark to run along the way, such as darumeru-train.")] = None,
    eval_every: Annotated[int, Option("Steps between its runs.")] = 50,
    eval_data: Annotated[str, Option("Its data: hub, mini, or the folder of a bundle.")] = "mini",
    force: Force = False,
    warn: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train a model on chat examples and write the merged model; returns the manifest.

    Only the assistant's tokens count; the loss of an optimizer step is the mean over those of all its examples. What is
    trained is kept and updated in float32. Checkpoints lie in `OUTPUT.training` until the output is there; the same call
    resumes from the newest whole one and computes the same numbers as if it had not been stopped. Under `torchrun` or
    `accelerate launch` every process calls it; they share the rows of a step, and the first one merges.

    Args:
        model: the model to calibrate, with a chat template; the other options say themselves what they are.
        recipe: a name, or fields of your own.
        warn: receives one sentence for anything doubtful.
        progress: is told how many of the optimizer steps are done.
        changes: fields of the recipe to change, see `Recipe`.

    Raises:
        UserError: a setting that is not possible, a model without a chat template, data without a usable example,
            checkpoints of other settings, an evaluation inside a model that is cut up.
        DarumeruError: the training diverged, or merging changed the model.
    """
    from accelerate import PartialState

    from darumeru.files import file_sha256
    from darumeru.record.run import exclusive

    chosen = choose_recipe(recipe, changes)
    for package in ("trl", "peft", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"Calibration needs {package}: pip install 'darumeru[train]'.")
    sharded = is_asked(fsdp)
    folder = Path(output)
    work = sibling(folder, ".training")
    if save_every < 1 or eval_every < 1:
        raise UserError("--save-every and --eval-every are numbers of steps, 1 or more.")
    if folder.is_dir() and not is_empty(folder) and not force:
        raise UserError(f"The output folder {folder} is not empty. Name a new one, or add --force to replace it.")
    if sharded and suite is not None:
        raise UserError(
            "--suite does not work under FSDP: no process has the whole model. Leave it out, and evaluate the result."
        )
    device, dtype = _place(device, dtype)
    # Merging takes the first process longer than the others usually wait.
    processes = PartialState(cpu=device == "cpu", timeout=timedelta(days=1))
    first = processes.is_main_process
    source = open_checkpoint(model)
    tokenizer, ends, context = _tokenizer(source.folder)
    max_length = min(chosen.max_length, context or chosen.max_length)
    examples, left_out = render_all(Writers.of(tokenizer, max_length), read_chats(Path(data)), ends, max_length)
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
    with exclusive(work) if first else nullcontext(), without_accelerate(), hushed():
        with processes.main_process_first():
            if first:
                claim(work, identity, force)
        if device == "cpu" and (slow := slow_here(dtype)):
            warn(slow)
        base = load_model(source.folder, dtype)
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
        if newest is None or step_of(newest) < len(steps):
            if sharded:
                shard_frozen(wrapped, processes.device)
            callbacks = [progress_callback(progress if first else None)]
            if suite is not None:
                callbacks.append(_evaluation(suite, eval_every, eval_data, folder, source.folder))
            newest = train(
                wrapped, tokenizer, examples, steps, work, newest, chosen, device, dtype, save_every, callbacks
            )
        if not first:
            processes.wait_for_everyone()  # while the first one merges
            return read_manifest(folder) or {}
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
    processes.wait_for_everyone()
    return manifest


def _place(device: str, dtype: str) -> tuple[Any, Any]:
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        if not torch.cuda.is_available():
            raise UserError("There is no GPU that PyTorch can use here. Use --device cpu.")
        if torch.cuda.device_count() > 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            raise UserError(
                "A process calibrates on one GPU: start one for each with torchrun --nproc_per_node N -m lep calibrate train …, "
                "or make one visible, for example with CUDA_VISIBLE_DEVICES=0."
            )
    if dtype == "auto":
        # Not where a GPU emulates it (Turing, Volta), many times slower than float32.
        native = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if native else "float32"
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


def _evaluation(suite: str, every: int, data: str, folder: Path, model: Path) -> Any:
    """Darumeru's evaluation during training; its runs lie beside the output, in `OUTPUT.runs`."""
    callback = importlib.import_module("darumeru.watch").DarumeruCallback
    tokenizer, _, _ = _tokenizer(model)  # one of its own: the trainer changes the padding token of its
    runs = sibling(folder, ".runs")
    return callback(suite, every=every, data=data, runs=runs, tokenizer=tokenizer, name=folder.name)
