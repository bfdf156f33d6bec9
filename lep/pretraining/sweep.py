"""A search for the learning rate: short trainings on the first part of the data, measured, and the best one picked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import NotFiniteError, UserError
from darumeru.files import fingerprint, read_json, write_json
from lep.model.manifest import read_manifest
from lep.pretraining.job import pretrain
from lep.pretraining.settings import PretrainSettings

if TYPE_CHECKING:
    from darumeru.evaluation import Settings


@dataclass(frozen=True)
class Trial:
    """A short training.

    Attributes:
        learning_rate: its learning rate.
        loss: its last training loss; NaN where it was not finite.
        bits_per_byte: mean over the held-out texts after it; infinite where the loss was not finite.
        score: the benchmark's summary score after it, None where none was asked for.
    """

    learning_rate: float
    loss: float
    bits_per_byte: float
    score: float | None = None


def sweep(
    model: str | Path,
    corpus: Sequence[str | Path],
    folder: str | Path,
    rates: Sequence[float],
    *,
    held_out: Sequence[str],
    settings: PretrainSettings,
    fraction: float = 0.2,
    force: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Trial]:
    """Train for a fraction of the steps with each learning rate and measure; the same call resumes.

    Every training has a whole schedule, warm-up and decay, and reads the same text. Where `settings` name a suite, the
    written models are evaluated with it on transformers.

    Args:
        model: as for `pretrain`, like `corpus` and `held_out`.
        folder: gets a folder for each training, the tokenized corpus and the runs of the benchmark.
        rates: learning rates of embedding and head.
        settings: of the whole training.
        fraction: of the steps.
        corpus: texts.
        held_out: texts to measure on; needed.
        force: begin a training anew whose folder holds another one.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: no held-out text, no rates, or a fraction that is none.
    """
    if not held_out:
        raise UserError("A search for the learning rate compares bits per byte: name texts with --held-out.")
    if not rates or any(not (math.isfinite(rate) and rate > 0) for rate in rates) or len(set(rates)) < len(rates):
        raise UserError("--sweep-lr wants different positive numbers, such as 2e-5,5e-5,1e-4,2e-4.")
    if not 0 < fraction <= 1:
        raise UserError(f"--sweep-fraction must be above 0 and at most 1, not {fraction}.")
    place = Path(folder)
    changes: dict[str, Any] = {
        "suite": None,
        "stop_if": (),
        "keep_best": None,
        "within": (),
        "head_learning_rate": None,
    }
    if settings.max_steps > 0:
        changes["max_steps"] = max(1, round(settings.max_steps * fraction))
    else:
        changes["num_train_epochs"] = settings.num_train_epochs * fraction
    trials = []
    for rate in rates:
        output = place / f"lr-{rate:g}"
        short = settings.model_copy(update={**changes, "learning_rate": rate})
        try:
            manifest = pretrain(
                model, corpus, output, held_out=held_out, settings=short, force=force, warn=warn,
                blocks=place / "blocks",
            )  # fmt: skip
        except NotFiniteError:
            trials.append(Trial(rate, math.nan, math.inf))
            continue
        measures = manifest["measures"]
        score = _score(output, place / "runs", settings) if settings.suite is not None else None
        trials.append(Trial(rate, measures["loss"], measures["bits_per_byte"]["after"], score))
    write_json(place / "sweep.json", [asdict(trial) for trial in trials])
    return trials


def pick(trials: Sequence[Trial]) -> Trial:
    """The trial with the best score, or, where one has none, with the fewest bits per byte; the first of equals.

    Raises:
        UserError: no training stayed finite.
    """
    sound = [trial for trial in trials if math.isfinite(trial.bits_per_byte)]
    if not sound:
        raise UserError("No learning rate of the search kept the loss finite. Try lower ones.")
    scores = [trial.score for trial in sound if trial.score is not None]
    if len(scores) == len(sound):
        return sound[scores.index(max(scores))]
    return min(sound, key=lambda trial: trial.bits_per_byte)


def _score(model: Path, runs: Path, settings: PretrainSettings) -> float | None:
    """The suite's summary score of a written model; computed by the first process, read by the others."""
    from accelerate import PartialState

    found = model.parent / f"{model.name}.score.json"
    asked = {"suite": settings.suite, "data": settings.data, "limit": settings.limit, "seed": settings.seed,
             "model": fingerprint(read_manifest(model))}  # fmt: skip
    with PartialState().main_process_first():
        if not found.is_file() or read_json(found).get("asked") != asked:
            from darumeru.evaluation import execute, prepare

            run = execute(prepare(_evaluation(model, settings)), runs)
            write_json(found, {"asked": asked, "score": run.scores.suite.value})
        score: float | None = read_json(found)["score"]
    return score


def _evaluation(model: Path, settings: PretrainSettings) -> Settings:
    from darumeru.evaluation import settings_of

    return settings_of(
        model=str(model), suite=settings.suite, data=settings.data, limit=settings.limit, engine="hf",
        device=settings.device, seed=settings.seed,
    )  # fmt: skip
