"""The steps of a cell, each in a folder that is named by its key: whoever needs the same step finds it there.

`STAGE-KEY/` holds what the step wrote and `step.json`, written last: how long it took, and how often it was made. Keys are those
of `lep.pipeline`, fingerprints of settings and inputs. So a vocabulary or an initialised model that ten cells share is made once,
also by processes beside one another: they wait for each other (`held`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from darumeru.files import fingerprint, read_json, write_json
from darumeru.settings import as_before
from lep.model.checkpoint import locate
from lep.model.folders import files_fingerprint
from lep.pipeline import measures
from lep.pipeline.stage import Model, Recipe, Stage, Step, Study, Talk, named_files, source_of
from lep.pipeline.stages import evaluate, init, pretrain, vocab
from lep.study.grid import Cell, Grid
from lep.study.measure import measure_model

STAGES = "stages"
RECORD = "step.json"


def steps_of(grid: Grid, cell: Cell, root: Path, contents: dict[str, str]) -> dict[str, Step]:
    """Return the steps of a cell by name, in an order in which they can be done; `original…` are of its base.

    Args:
        grid: of the cell.
        cell: one of its cells.
        root: the folder of the study.
        contents: fingerprints of inputs that were read already; shared by all cells.
    """
    steps: dict[str, Step] = {}

    def add(name: str, adding: Callable[[Study], None], more: Any = None) -> None:
        def built(output: Path) -> Step:
            study = Study(cell.recipe, output, _models(cell.recipe, root, output), dict(steps), contents)
            adding(study)
            return study.steps[name]

        key = built(root).key
        key = key if more is None else fingerprint([key, more])
        # The key does not depend on where the output lies.
        steps[name] = replace(built(root / STAGES / f"{name}-{key[:16]}"), key=key)

    def measured(name: str, needs: str | None) -> None:
        add(name, lambda study: _add_measure(study, grid, name, needs))
        if grid.evaluates:
            add(f"{name}-suite", lambda study: _add_suite(study, f"{name}-suite", needs))

    measured("original", None)
    if cell.control:
        add("pretrain", _add_control, _curve(cell.recipe, contents))
    else:
        add("vocab", vocab.add_steps)
        add("init", init.add_steps)
        add("pretrain", pretrain.add_steps, _curve(cell.recipe, contents))
    measured("measure", "pretrain")
    return steps


def _models(recipe: Recipe, root: Path, output: Path) -> dict[str, Model]:
    base = Model("base", "base", "base", source_of(recipe.top.base, root), None)
    stages: tuple[Stage[Any], ...] = (init, pretrain)
    return {model.id: model for model in (base, *(m for stage in stages for m in stage.models(recipe, output)))}


def _curve(recipe: Recipe, contents: dict[str, str]) -> list[Any]:
    """Return what the curve of a training depends on beside the training itself."""
    settings = recipe[pretrain]
    for file in recipe.top.held_out.values():
        if file not in contents:
            contents[file] = files_fingerprint([Path(file)])
    texts = {name: contents[file] for name, file in recipe.top.held_out.items()}
    return [texts, settings.held_out_characters, settings.eval_steps]


def _add_control(study: Study) -> None:
    """Add the training of the base in its own vocabulary."""
    settings, corpus = study.recipe[pretrain], list(study.recipe.top.corpus)
    output = study.models[pretrain.kind].source

    def run(talk: Talk) -> None:
        from lep.pretraining.job import pretrain as train

        train(
            locate(study.base), corpus, Path(output), held_out=study.held_out, original=locate(study.base),
            settings=settings, warn=talk.warn,
        )  # fmt: skip

    study.add(
        "pretrain", "pretrain", output, run, inputs=[study.base, *corpus, *pretrain.files(settings)],
        settings=settings.of_the_result(), choice=settings.of_the_choice(), model=True, resumes=True,
    )  # fmt: skip


def _add_measure(study: Study, grid: Grid, name: str, needs: str | None) -> None:
    recipe, copies = study.recipe, grid.own.copies
    characters, device = recipe[pretrain].held_out_characters, recipe[pretrain].device
    output = study.output / "measure.json"
    folder = study.steps[needs].output if needs else None
    field, corpus = recipe.top.field, list(recipe.top.corpus)

    def run(talk: Talk) -> None:
        measure_model(
            folder or locate(study.base), study.held_out, corpus, output, field=field, characters=characters, copies=copies,
            device=device, trained=folder is not None,
        )  # fmt: skip

    study.add(
        name, "measure", output, run, needs=[needs] if needs else [],
        inputs=[*([] if needs else [study.base]), *recipe.top.held_out.values(), *(corpus if copies else [])],
        settings={"characters": characters, "copies": copies, "texts": list(recipe.top.held_out)},
    )  # fmt: skip


def _add_suite(study: Study, name: str, needs: str | None) -> None:
    settings = as_before({key: value for key, value in study.recipe[evaluate].items() if key != "models"})
    source = str(study.steps[needs].output) if needs else study.base
    output = study.output / "suite.json"

    def run(talk: Talk) -> None:
        with talk.stage(name) as progress:
            measures.benchmark(source, {**settings, "training": None}, study.output / "runs", output, progress)

    study.add(
        name, "measure", output, run, needs=[needs] if needs else [],
        inputs=[*([] if needs else [study.base]), *named_files(settings)], settings=settings,
    )  # fmt: skip


def record(step: Step) -> dict[str, Any] | None:
    """Return the record of a step that is done, None for one that is not."""
    file = step.output.parent / RECORD
    return dict(read_json(file)) if file.is_file() and (step.whole or step.name == "pretrain") else None


def ensure(steps: Mapping[str, Step], name: str, talk: Talk, say: Callable[[str], None]) -> None:
    """Have a step done, and before it those that it needs.

    Args:
        steps: of a cell.
        name: of one of them.
        talk: for the step.
        say: receives one sentence for each step that is run.
    """
    step = steps[name]
    if _there(step):
        return
    for need in step.needs:
        ensure(steps, need, talk, say)
    with held(step.output.parent):
        if _there(step):
            return
        say(f"{step.output.parent.name}")
        before, began = read_json(file) if (file := step.output.parent / RECORD).is_file() else {}, time.perf_counter()
        file.unlink(missing_ok=True)
        if not step.whole or step.resumes:
            step.run(talk)
        seconds = round(time.perf_counter() - began, 1)
        write_json(file, {"key": step.key, "seconds": seconds, "times": before.get("times", 0) + 1})


def _there(step: Step) -> bool:
    return step.whole and (step.output.parent / RECORD).is_file()


def drop_model(step: Step) -> None:
    """Delete a trained model that was measured; how long it took stays."""
    with held(step.output.parent):
        for path in step.output.parent.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; waits for one that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
