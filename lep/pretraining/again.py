"""What is asked of a training that is done: another choice among its checkpoints can still be made, all else is too late."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darumeru.files import read_json
from lep.pretraining.best import Choice
from lep.pretraining.checkpoints import checkpoints
from lep.pretraining.claim import measured_texts
from lep.pretraining.settings import PretrainSettings

_DONE = "The training is done already"


def chooses_again(
    done: Mapping[str, Any],
    settings: PretrainSettings,
    choice: Choice | None,
    *,
    texts: Mapping[str, str],
    folder: Path,
    warn: Callable[[str], None],
) -> bool:
    """Return whether another checkpoint of a finished training may be wanted as its result; whatever comes too late is said.

    Args:
        done: the manifest of the training.
        settings: that are asked for now.
        choice: by held-out measures, as they ask for it; None for one by a benchmark, or for the last checkpoint.
        texts: fingerprints of the held-out texts that are given now, by name.
        folder: of the checkpoints, in that of the training.
        warn: receives one sentence for each of these.
    """
    known = measured_texts(folder.parent) or {
        name: texts.get(name, "") for name in done["settings"].get("held_out", texts)
    }
    for sentence in _too_late(done["settings"], settings, [name for name in texts if known.get(name) != texts[name]]):
        warn(sentence)
    wanted = settings.of_the_choice()
    if all(done["settings"].get(name) == wanted.get(name) for name in ("keep_best", "within")):
        return False
    if why := _obstacle(folder, choice, settings.keep_best):
        warn(f"{_DONE}, and its result stays what it is: {why}.")
        return False
    there = ", ".join(str(step) for step, _ in checkpoints(folder))
    warn(f"{_DONE}: its result is chosen again, among its checkpoints of steps {there}.")
    return True


def _too_late(done: Mapping[str, Any], settings: PretrainSettings, texts: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for what a training that is done can no longer take."""
    if settings.stop_if and list(settings.stop_if) != done.get("stop_if"):
        yield f"{_DONE}, so --stop-if does not end it. Name another --output to train with these rules."
    if texts:
        yield f"{_DONE}, and was not measured on {', '.join(texts)} as given now. Its figures are those of the texts before."


def _obstacle(folder: Path, choice: Choice | None, keep_best: str | None) -> str | None:
    """Return why the result cannot be chosen among the checkpoints of a folder; None where it can."""
    there = checkpoints(folder)
    if not there:
        return "its checkpoints are gone"
    if choice is not None:
        log = read_json(there[-1][1] / "trainer_state.json")["log_history"]
        measured = choice.measured(log)
        if not any(step in measured for step, _ in there):
            return f"none of its checkpoints was measured by what --keep-best {choice.measure} and --within look at"
        return None
    best = folder / "best.json"
    if keep_best is not None and (not best.is_file() or read_json(best)["metric"] != keep_best):
        return f"it was not watched by {keep_best}"
    return None
