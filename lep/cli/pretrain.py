"""Continued pre-training of embeddings and head on a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from darumeru.errors import UserError
from darumeru.extras import need
from darumeru.files import sibling
from darumeru.options import Command, with_options
from lep.cli.terminal import fail, group, is_first, print_table, show, warn
from lep.measure.held_out import HeldOut
from lep.model.checkpoint import locate
from lep.pipeline.adaptation import write_adaptation
from lep.pretraining.control import control_folder, control_settings, train_control
from lep.pretraining.job import pretrain
from lep.pretraining.original import need_original
from lep.pretraining.settings import PretrainSettings, settings_of
from lep.pretraining.sweep import Trial, pick, sweep

app = group()


@app.command(cls=Command, help=f"{__doc__} Other weights with --train; the same command resumes.")
@with_options(PretrainSettings)
@with_options(pretrain, without="settings warn blocks characters", into="what")
def pretrain_command(
    what: dict[str, Any],
    settings: dict[str, Any],
    sweep_lr: Annotated[
        str | None, typer.Option(help="First try these learning rates: 2e-5,5e-5,1e-4,2e-4.", show_default=False)
    ] = None,
    sweep_fraction: Annotated[float, typer.Option(help="Share of the steps for each of them.")] = 0.2,
    sweep_only: Annotated[bool, typer.Option("--sweep-only", help="Try them and stop.")] = False,
    control: Annotated[
        bool,
        typer.Option(
            "--control",
            help="Then train the model before the change of vocabulary (--original) equally long on the same text, into "
            "OUTPUT-control, and report in OUTPUT/adaptation what the vocabulary costs.",
        ),
    ] = False,
) -> None:
    """See the module."""
    how = settings_of(**settings)
    original = _original(what, how) if control else None
    output, given = Path(what["output"]), {key: what[key] for key in ("model", "corpus", "held_out")}
    blocks = None
    try:
        if sweep_lr is not None:
            place = sibling(output, "-sweep")
            blocks = place / "blocks"
            trials = sweep(
                **given, folder=place, rates=_numbers(sweep_lr), settings=how, fraction=sweep_fraction, force=what["force"],
                warn=warn,
            )  # fmt: skip
            chosen = pick(trials)
            _show_trials(trials, chosen)
            how = how.model_copy(update={"learning_rate": chosen.learning_rate})
        if not sweep_only:
            manifest = pretrain(**what, settings=how, warn=warn, blocks=blocks)
            if is_first():
                show(output, manifest)
            if original is not None:
                _control(original, what, how)
    except KeyboardInterrupt:
        fail("Stopped. Repeat the command to resume from the last checkpoint.", 130)


def _original(what: dict[str, Any], how: PretrainSettings) -> Path:
    """The model before the change of vocabulary; whatever the control lacks is said before anything is trained."""
    need("altair", "vl_convert", extra="leaderboard")
    if not what["held_out"]:
        raise UserError("--control compares bits per byte: name texts with --held-out NAME=FILE.")
    control_settings(how)
    return need_original(locate(what["model"]), what["original"])


def _control(original: Path, what: dict[str, Any], how: PretrainSettings) -> None:
    """Train the control and write the report."""
    given = {"held_out": what["held_out"], "settings": how, "warn": warn}
    manifest = train_control(original, what["corpus"], what["output"], **given)
    if is_first():
        place = control_folder(what["output"])
        show(place, manifest)
        texts = HeldOut.read(what["held_out"], field=how.field, characters=how.held_out_characters)
        page = write_adaptation(original, place, Path(what["output"]), texts)
        Console(soft_wrap=True).print(Text(f"Report: {page}"))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--sweep-lr {text!r} is no list of numbers such as 2e-5,5e-5.") from None


def _show_trials(trials: Sequence[Trial], chosen: Trial) -> None:
    if not is_first():
        return
    rows = [
        (
            f"{trial.learning_rate:g}", f"{trial.loss:.4f}", f"{trial.bits_per_byte:.4f}",
            "–" if trial.score is None else f"{trial.score:.4f}",
            Text("picked", style="green") if trial is chosen else Text(""),
        )
        for trial in trials
    ]  # fmt: skip
    print_table(("learning rate", "loss", "bits per byte", "score", ""), rows, words=())
