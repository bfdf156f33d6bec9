"""The control of an adaptation: the model before the change of vocabulary, trained equally long on the same texts.

What an adapted model gained from reading the texts at all, the control gains too. What is left between the two is what the
vocabulary costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from darumeru.errors import UserError
from darumeru.files import sibling
from lep.model.manifest import read_manifest
from lep.pretraining.data import Texts
from lep.pretraining.job import pretrain
from lep.pretraining.schedule import parse_schedule
from lep.pretraining.settings import PretrainSettings


def control_folder(output: str | Path) -> Path:
    """Return where the control of a training lies: beside it."""
    return sibling(Path(output).absolute(), "-control")


def control_settings(settings: PretrainSettings) -> PretrainSettings:
    """Return the settings of the control: what is trained without the new rows, which it does not have; no benchmark.

    Raises:
        UserError: new rows alone are trained, so nothing is left.
    """
    parts = []
    for what, share in parse_schedule(settings.train):
        rest = "+".join(part for part in what.split("+") if part != "new-rows")
        if not rest:
            raise UserError(
                f"--train {settings.train} trains new rows alone in a part of it, and the original has none: there is nothing "
                "to compare with. Train new-rows+lora, or leave --control out."
            )
        parts.append((rest, share))
    *first, (last, _) = parts
    changes: dict[str, Any] = {"train": ",".join([*(f"{what}:{share:g}" for what, share in first), last])}
    changes |= {"suite": None, "eval_every": None, "stop_if": (), "new_from": None, "shared_learning_rate": 0.0}
    if settings.suite is not None:
        changes |= {"keep_best": None, "within": ()}
    return settings.model_copy(update=changes)


def train_control(
    original: Path,
    corpus: Sequence[str | Path],
    adapted: str | Path,
    *,
    held_out: Sequence[str],
    settings: PretrainSettings,
    warn: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train the control of a training that is done, into the folder beside it; returns its manifest. The same call resumes.

    It reads as many characters of each text as the adapted model did, in its own tokens, so it takes more steps.

    Args:
        original: the model before the change of vocabulary.
        corpus: the texts of the training.
        adapted: the output folder of the training.
        held_out: texts to measure on.
        settings: of the training.
        warn: receives one sentence for anything doubtful.

    Raises:
        UserError: the training is not done, or there is nothing to train.
    """
    from transformers import AutoTokenizer

    place = Path(adapted)
    manifest = read_manifest(place)
    if manifest is None:
        raise UserError(f"The training in {place} is not done, so how much its control has to read is not known.")
    own = control_settings(settings)
    data = Texts(corpus, AutoTokenizer.from_pretrained(place), settings).open(place / "blocks")
    return pretrain(
        original, corpus, control_folder(place), held_out=held_out, original=original, settings=own, warn=warn,
        characters=data.characters(manifest["measures"]["steps"]),
    )  # fmt: skip
