"""Plan → answers → record; a run that was begun resumes."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.evaluation.plan import Plan, prepare
from darumeru.evaluation.score import score, score_samples
from darumeru.files import dumps, fingerprint, read_json, slug, write_json
from darumeru.inference.asking import Progress, ask, requests_sha256
from darumeru.record.folder import tidy
from darumeru.record.run import Journal, Run, exclusive
from darumeru.record.scores import Rescored, Time
from darumeru.settings import Settings, as_before, settings_of
from darumeru.task.suite import Catalogue

if TYPE_CHECKING:
    from darumeru.engines import Engine


OpenEngine = Callable[[Plan], "Engine"]


def open_planned(plan: Plan) -> Engine:
    """Load the model of a plan into its engine."""
    return plan.opened.load(plan.max_len)


def run_of(plan: Plan, output: Path) -> tuple[Run, dict[str, Any]]:
    """Return the folder of a plan's run, which may not be there yet, and its header."""
    header = plan.header()
    identity = fingerprint(header)
    run = Run(output / f"{slug(plan.model.name)}-{slug(plan.suite.name)}-{identity[:10]}")
    return run, header | {"id": identity}


@contextmanager
def hold(plan: Plan, run: Run, header: Mapping[str, Any]) -> Iterator[None]:
    """Hold a run's folder, so that no second process computes it; its header is written if it is new.

    Raises:
        BusyError: another process holds it.
    """
    run.path.mkdir(parents=True, exist_ok=True)
    with exclusive(run.path):
        if not (run.path / "header.json").is_file():
            write_json(run.path / "header.json", {**header, "started": _now(), "where": _where(plan)})
        yield


def note_engine(run: Run, engine: Engine) -> None:
    """Write into a run's header what its engine says of itself."""
    write_json(run.path / "header.json", run.header.to_json() | {"environment": engine.describe()})


def execute(
    plan: Plan, output: Path = Path("runs"), progress: Progress | None = None, open_engine: OpenEngine = open_planned
) -> Run:
    """Compute a plan's answers, or what is missing of them, and write the record.

    Raises:
        UserError: another process computes the same run.
        DarumeruError: the engine failed; the answers so far are kept. Or a task failed: it is named, the others are scored.
    """
    began = time.perf_counter()
    run, header = run_of(plan, output)
    if run.complete:
        run.verify()
        tidy(run.path)
        return run
    if not run.path.exists():
        _take_over(plan, header, run.path)
    with hold(plan, run, header):
        if _was_scored(run):
            return rescore(run, plan.settings.include_path)
        journal = Journal(run.path / "journal.jsonl")
        faults, engine_seconds = _answer(plan, run, journal, progress, open_engine)
        samples, scores = score(plan, journal, faults)
        scores.engine = run.header.environment
        wall = plan.seconds + time.perf_counter() - began
        # Of the process that finished the run: an earlier one's answers cost nothing here.
        scores.time = Time(
            wall_seconds=round(wall, 3),
            engine_seconds=round(engine_seconds, 3),
            not_engine_share=round(1 - engine_seconds / wall, 4),
        )
        scores.finished = _now()
        run.write(samples, scores, complete=not scores.failed)
    return run


def _answer(
    plan: Plan, run: Run, journal: Journal, progress: Progress | None, open_engine: OpenEngine
) -> tuple[dict[str, str], float]:
    """Have all requests answered; the requests that the engine could not answer, and the seconds that it worked."""
    if all(request.id in journal.answers for request in plan.requests):
        return {}, 0.0
    began = time.perf_counter()
    with open_engine(plan) as engine:
        note_engine(run, engine)
        loading = time.perf_counter() - began
        faults, seconds = ask(engine, plan.requests, journal, progress)
    return faults, loading + seconds


def _was_scored(run: Run) -> bool:
    """Return whether a run was finished and scoring it again was interrupted: its answers are in the samples, with no journal."""
    return (
        not (run.path / "journal.jsonl").exists()
        and (run.path / "scores.json").is_file()
        and not run.scores.failed
        and all((run.path / "samples" / f"{task}.jsonl").is_file() for task in run.tasks)
    )


def _take_over(plan: Plan, header: dict[str, Any], path: Path) -> None:
    """Give a run the answers of an earlier start that lacked data of the hub which can be had now, by renaming its folder."""
    stated = json.loads(dumps(header))
    for begun in path.parent.glob(f"{slug(plan.model.name)}-{slug(plan.suite.name)}-*/header.json"):
        run = Run(begun.parent)
        with suppress(UserError):  # no header of this version, or another process computes it
            if not run.complete and _is_part(old := read_json(begun), stated, plan):
                with exclusive(run.path):
                    write_json(begun, {**old, **header})
                    run.path.rename(path)
                return


def _is_part(old: Any, new: dict[str, Any], plan: Plan) -> bool:
    """Return whether a header asks the same of fewer tasks, those whose data could be had."""
    if not isinstance(old, dict) or not isinstance(tasks := old.get("tasks"), dict) or set(tasks) != set(new["tasks"]):
        return False
    varying = {"id", "tasks", "requests_sha256"}
    if any(old.get(key) != value for key, value in new.items() if key not in varying):
        return False
    had = {name for name, facts in tasks.items() if facts}
    return all(tasks[name] == new["tasks"][name] for name in had) and old.get("requests_sha256") == requests_sha256(
        [request for request in plan.requests if request.id.rsplit("/", 2)[0] in had]
    )


def rescore(run: Run, include_path: tuple[Path, ...] = ()) -> Run:
    """Compute a run's scores again from its stored answers, with the scoring rules of this version.

    Raises:
        UserError: the run is not finished, or was imported.
    """
    from darumeru.task.options import Wording

    header = run.header
    if header.imported:
        raise UserError(
            f"Run '{run.path}' was imported from {header.imported.format}: delete its folder and import the file again, "
            "which scores it by the rules of this version."
        )
    if not all((run.path / "samples" / f"{t}.jsonl").is_file() for t in run.tasks):
        raise UserError(f"Run '{run.path}' is not finished: start the same 'darumeru run' again, then rescore it.")
    catalogue = Catalogue(include_path)
    suite = catalogue.suite(header.suite.name, run.tasks)
    wording = {n: Wording(**t.wording) for n, t in header.tasks.items() if t.wording}
    tasks = catalogue.load(
        run.tasks, "mini", wording, header.likelihood
    )  # rows come from the samples; the bundle is not read
    old = run.scores
    samples, scores = score_samples(suite, tasks, {task: list(run.samples(task)) for task in run.tasks}, header.seed)
    for name, result in scores.tasks.items():
        if name in old.tasks and old.tasks[name].seconds is not None:
            result.seconds = old.tasks[name].seconds
    for key in ("engine", "time", "finished"):
        if key in old:
            setattr(scores, key, old[key])
    scores.rescored = Rescored(at=_now(), darumeru=version("darumeru"))
    run.write(samples, scores, complete=not scores.failed)
    return run


def evaluate(
    model: str | Path, *, output: str | Path = "runs", progress: Progress | None = None, **settings: Any
) -> Run:
    """Evaluate a model and write the record; a run that was begun is resumed, a finished one is returned as it is.

    Args:
        model: a model folder or a hub id.
        output: the folder under which the run gets a folder of its own.
        progress: is told how far it has come.
        settings: see `Settings` (`suite`, `tasks`, `data`, `engine`, `mode`, `num_fewshot`, `limit`, `seed`, …).

    Returns:
        The finished run.

    Raises:
        UserError: what was asked for cannot be done so.
        DarumeruError: it failed; what was computed is kept.
    """
    return execute(prepare(settings_of(model=str(model), **settings)), Path(output), progress)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _where(plan: Plan) -> dict[str, Any]:
    """The surroundings of a run, which do not decide its results."""
    packages = ("darumeru", "lm-eval", "transformers", "torch", "tokenizers", "datasets", "numpy")
    settings = plan.settings
    checkpoint = {"asked": asked(settings), "weights": signature(plan.model.weights)} if settings.training else {}
    return checkpoint | {
        "model_path": str(plan.settings.model),
        "data": plan.settings.data,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {p: version(p) for p in packages},
    }


def asked(settings: Settings) -> str:
    """Fingerprint of what is asked of a checkpoint, whichever it is."""
    return fingerprint(as_before(settings.model_dump(mode="json", exclude={"model", "tokenizer", "training"})))


def signature(files: Iterable[Path]) -> list[list[Any]]:
    """Return name, size and time of change of files, which tell without reading them whether they were written again."""
    return [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
