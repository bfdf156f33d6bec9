"""Many workers: what is lost between them, two small engines beside a large one, and what a checkpoint costs.

    python benchmarks/scale.py actors [--workers 1 4 16 64] [--each 625] [--model models/SmolLM2-135M-Instruct]
    python benchmarks/scale.py engines [--engine vllm] [--limit 20] [--model models/SmolLM2-135M-Instruct]
    python benchmarks/scale.py checkpoints [--count 100] [--workers 2]
    python benchmarks/scale.py faults [--limit N] [--every 20] [--ways one two workers driver] [--model …] [--output FILE]

`actors`: workers on a simulated cluster (`ray.cluster_utils.Cluster`, 8 workers a node) hold a stand-in for an engine, which
sleeps as long as an 8B model on a fast GPU would compute (`PREFILL`, `DECODE`) on the requests of the mini bundle, repeated up
to `--each` for each worker. Efficiency is the seconds of all requests over workers times wall clock, from the first request to
the last answer, once all workers hold the model. What is missing of 1 is two things: `without_requests`, the share of time in
which workers had nothing to answer or waited for a processor to say so, and `late`, by which sleepers woke late because the
processors were busy. Beside them the processor time of the driver, of all workers, and of Ray's own processes, and the driver's
peak memory.

`engines`: the mini bundle by one engine with all cores in this process, and by two workers with half of them each.

`checkpoints`: `darumeru watch --once` over checkpoints of a tiny model, by workers and, for a fifth of them, each in a process of
its own; seconds a checkpoint, of them in the engine.

`faults`: the mini bundle, zero-shot, in float32 by the hf engine in one process, by two workers, by two workers of which one is
killed every `--every` seconds, and by two workers whose driver is killed when half is answered and started again. Beside the
first: choices,
texts and scores that differ; how many answers were computed, computed again, and computed again although they were stored, which
must be none. Ends with 1 where something differs or was computed in vain.

Each prints one JSON object a line. On a machine that does other work the figures say little.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from darumeru.files import write_json
from darumeru.requests import Answer, Request
from darumeru.settings import WorkerSettings
from darumeru.workers.worker import Worker

PREFILL = 20_000.0
"""Prompt tokens that the stand-in reads in a second."""

DECODE = 2_500.0
"""Tokens that it writes in a second, over all requests that it answers at once."""

BATCH = 16
"""Requests that it answers at once."""

PER_NODE = 8
"""Workers of a simulated node."""


def seconds_of(request: Request) -> float:
    """What a request costs the stand-in."""
    return request.prompt_tokens / PREFILL + request.max_tokens / DECODE


def repeated(requests: Sequence[Request], total: int) -> list[Request]:
    """Return so many requests: those that are given, as often as needed."""
    copies = -(-total // len(requests))
    return [replace(r, id=f"{r.id}x{n}", prompt=r.packed) for n in range(copies) for r in requests][:total]


class StandIn:
    """Sleeps in an engine's place; the first answer of a batch says from when to when.

    Args:
        clock: has `sleep` and `monotonic`.
    """

    follows = False

    def __init__(self, clock: Any = time) -> None:
        self.clock = clock

    def describe(self) -> dict[str, Any]:
        """What an engine says of itself."""
        return {"engine": "stand-in", "dtype": "float32"}

    def close(self) -> None:
        """There is nothing to free."""

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """Answer a batch at a time."""
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            began = self.clock.monotonic()
            self.clock.sleep(sum(map(seconds_of, batch)))
            span = f"{began} {self.clock.monotonic()}"
            yield [
                Answer(r.id, logprobs=(0.0,), text=span if r is batch[0] else "", tokens=(0,) * r.max_tokens)
                for r in batch
            ]


class StandInWorker(Worker):
    """A worker that holds the stand-in."""

    def load(self, model: Any) -> Any:
        """Take no time to load."""
        return StandIn()


def actors(args: argparse.Namespace) -> None:
    """Efficiency by the number of workers."""
    from ray.cluster_utils import Cluster as Simulated

    from darumeru.evaluation import prepare, settings_of
    from darumeru.workers.cluster import connected
    from darumeru.workers.pool import Pool

    plan = prepare(settings_of(model=str(args.model), data="mini", engine="hf", num_fewshot=0))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    most = max(args.workers)
    simulated = Simulated(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8}
    )
    for _ in range(-(-most // PER_NODE)):
        simulated.add_node(num_cpus=PER_NODE, object_store_memory=10**8)
    for count in args.workers:
        asked = repeated(plan.requests, count * args.each)
        settings = WorkerSettings(workers=count, ray=simulated.address)
        with connected(settings, gpus=False, worker=StandInWorker) as cluster:
            cluster.cores = 1
            pool, began = Pool(cluster, settings.stall), time.monotonic()
            with pool.load(plan.opened, plan.max_len) as engine:
                while pool.summary() != f"{count} wait{'' if count > 1 else 's'}":
                    time.sleep(0.1)
                started, spent = time.monotonic() - began, processor_seconds()
                began = time.monotonic()
                answers = [answer for batch in engine.answers(asked) for answer in batch]
                wall = time.monotonic() - began
                spent = {who: seconds - spent[who] for who, seconds in processor_seconds().items()}
            pool.close()
        spans = [tuple(map(float, a.text.split())) for a in answers if a.text]
        work, busy = sum(map(seconds_of, asked)), sum(ended - began for began, ended in spans)
        tell(
            part="actors", workers=count, requests=len(answers), start_seconds=started, wall_seconds=wall,
            efficiency=work / (count * wall), without_requests=1 - busy / (count * wall),
            late=(busy - work) / (count * wall), processor_seconds=spent,
            driver_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )  # fmt: skip
    simulated.shutdown()


def processor_seconds() -> dict[str, float]:
    """Processor time so far of this process, of the workers, and of all else of Ray."""
    found = {"driver": time.process_time(), "workers": 0.0, "ray": 0.0}
    workers = workers_of(psutil.Process(), StandInWorker)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found["workers" if process in workers else "ray"] += sum(process.cpu_times()[:2])
    return found


def workers_of(driver: psutil.Process, worker: type[Worker]) -> list[psutil.Process]:
    """Return the processes of a driver's workers, which Ray names after their class."""
    found = []
    for process in driver.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if worker.__name__ in " ".join(process.cmdline()):
                found.append(process)
    return found


def engines(args: argparse.Namespace) -> None:
    """One engine with all cores, two workers with half of them each."""
    from darumeru.evaluation import execute, open_planned, prepare, settings_of
    from darumeru.evaluation.several import opened_by
    from darumeru.workers import open_pool

    plan = prepare(settings_of(model=str(args.model), data="mini", engine=args.engine, device="cpu", limit=args.limit))

    def timed(name: str, open_engine: Callable[[Any], Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            engine = open_engine(plan)
            loaded = time.perf_counter()
            run = execute(plan, Path(folder), open_engine=lambda _: engine)
            wall = time.perf_counter() - loaded
            scores = {task: result.score.value for task, result in run.scores.tasks.items()}
        tell(part="engines", how=name, load_seconds=loaded - began, wall_seconds=wall, scores=scores)

    # Workers first: an engine in this process leaves threads behind.
    with open_pool(WorkerSettings(workers=2), gpus=False) as pool:
        timed("two workers", opened_by(pool))
    timed("one engine", open_planned)


def checkpoints(args: argparse.Namespace) -> None:
    """Seconds a checkpoint."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from darumeru.record.run import find_runs
    from darumeru.watch import watch
    from support.checkpoints import checkpoint
    from support.tiny import make_model

    asked: dict[str, Any] = {
        "data": "mini",
        "engine": "hf",
        "device": "cpu",
        "num_fewshot": 0,
        "tasks": ("rwsd_tenth",),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = make_model(folder / "base", chat=False)
        for step in range(1, args.count + 1):
            checkpoint(base, folder / "training", step)
        for workers in (args.workers, 1):
            began = time.perf_counter()
            outcome = watch(
                folder / "training", output=folder / "runs", once=True, settle=0.0, workers=workers, **asked
            )
            wall, count = time.perf_counter() - began, len(outcome.points)
            engine = sum(run.scores.time.engine_seconds for run in find_runs(folder / "runs"))  # type: ignore[union-attr]
            tell(
                part="checkpoints", workers=workers, count=count, seconds_each=wall / count, engine_each=engine / count
            )
            shutil.rmtree(folder / "runs")
            for step in range(args.count // 5 + 1, args.count + 1):
                shutil.rmtree(folder / "training" / f"checkpoint-{step}", ignore_errors=True)


WAYS = {"one": "one process", "two": "two workers", "workers": "workers killed", "driver": "driver killed"}


class NotingWorker(Worker):
    """A worker that notes what it has computed, before it says so, and who it is, when it has said so."""

    def _answered(self, engine: Any, requests: Sequence[Request]) -> Iterator[Any]:
        for message in super()._answered(engine, requests):
            note("computed", [a.id for a in message.answers])
            yield message
            note("answering", [str(os.getpid())])


def note(event: str, ids: Sequence[str]) -> None:
    """Add to the log of a way, which the driver and its workers share."""
    with Path(os.environ["SCALE_LOG"]).open("ab", buffering=0) as log:  # one call, so that no lines mix
        log.write("".join(f"{event} {id_}\n" for id_ in ids).encode())


def noted(log: Path) -> list[tuple[str, str]]:
    """Return the events of a log, each with what it is about."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(event, about) for event, _, about in (line.partition(" ") for line in lines)]


def one_run(args: argparse.Namespace) -> None:
    """Evaluate, as a process that may be killed."""
    from darumeru.evaluation import execute, prepare, settings_of
    from darumeru.evaluation.several import opened_by
    from darumeru.record.run import Journal
    from darumeru.workers.cluster import connected
    from darumeru.workers.pool import Pool

    append = Journal.append

    def noting(journal: Journal, batch: Sequence[Answer], *rest: Any) -> None:
        append(journal, batch, *rest)
        note("stored", [a.id for a in batch])

    Journal.append = noting
    asked = {"engine": "hf", "device": "cpu", "dtype": "float32", "limit": args.limit, "num_fewshot": 0}
    plan = prepare(settings_of(model=str(args.model), data="mini", **asked))
    with ExitStack() as stack:
        pool = None
        if args.way != "one":
            settings = WorkerSettings(workers=2)
            pool = Pool(stack.enter_context(connected(settings, False, NotingWorker)), settings.stall)
            stack.callback(pool.close)
        execute(plan, args.output, open_engine=opened_by(pool))


def faults(args: argparse.Namespace) -> None:
    """Compare a run by one process with runs whose workers and driver are killed."""
    from rich.console import Console
    from rich.table import Table

    from darumeru.record.run import Run, load_run

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        alone: Run | None = None
        for way in args.ways:
            folder, began = Path(name) / way, time.monotonic()
            deaths = faulty(args, way, folder, rows[0]["stored"] if rows else 0)
            wall, run = time.monotonic() - began, load_run(next((folder / "runs").iterdir()))
            alone = alone or run
            found = events(folder / "log") | differences(alone, run)
            rows.append({"way": WAYS[way], "seconds": wall, "killed": deaths} | found)
            tell(part="faults", **rows[-1])
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=160).print(table)
    if args.output:
        write_json(args.output, rows)
    bad = ("failed", "choices", "texts", "scores", "again_though_stored", "stored_twice")
    if any(row[key] for row in rows for key in bad):
        raise SystemExit(1)


def faulty(args: argparse.Namespace, way: str, folder: Path, total: int) -> int:
    """Have a run computed and kill what is to be killed; return how many processes were."""
    folder.mkdir()
    log = folder / "log"
    command = [
        sys.executable,
        __file__,
        "one-run",
        "--way",
        way,
        "--model",
        str(args.model),
        "--output",
        str(folder / "runs"),
    ]
    command += ["--limit", str(args.limit)] if args.limit else []
    environment = os.environ | {"SCALE_LOG": str(log)}

    def stored() -> int:
        return sum(event == "stored" for event, _ in noted(log))

    killed, draw = 0, random.Random(0)
    process = psutil.Popen(command, env=environment)
    if way == "driver":
        while stored() < max(1, total / 2) and process.poll() is None:
            time.sleep(0.1)
        left = process.children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(left, timeout=180)  # agents of Ray notice it after a minute
        if alive:
            raise SystemExit(f"{len(alive)} processes outlive their driver.")
        process, killed = psutil.Popen(command, env=environment), 1
    last = time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if way == "workers" and time.monotonic() - last >= args.every:
            # Of those that have answered: three that die one after another while they load the model rightly end a run.
            answering = {pid for event, pid in noted(log) if event == "answering"}
            if workers := [p for p in workers_of(process, NotingWorker) if str(p.pid) in answering]:
                draw.choice(workers).kill()
                killed, last = killed + 1, time.monotonic()
    if process.returncode:
        tell(part="faults", way=WAYS[way], ended_with=process.returncode)
    return killed


def events(log: Path) -> dict[str, Any]:
    """Return what was computed and stored, and how often in vain."""
    computed: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    late = 0
    for event, id_ in noted(log):
        if event == "stored":
            stored[id_] += 1
        elif event == "computed":
            computed[id_] += 1
            late += id_ in stored
    return {
        "stored": len(stored),
        "again_in_flight": computed.total() - len(computed) - late,
        "again_though_stored": late,
        "stored_twice": stored.total() - len(stored),
    }


def differences(a: Any, b: Any) -> dict[str, Any]:
    """Return how many choices, texts and tasks' scores differ between two runs, and by how much log-probabilities do at most."""
    choices = texts = 0
    most = 0.0
    failed = [task for task in a.tasks if task not in b.scores.tasks]  # of which some request killed three workers
    both = [task for task in a.tasks if task not in failed]
    for task in both:
        for x, y in zip(a.samples(task), b.samples(task), strict=True):
            choices += x.pred != y.pred
            for p, q in zip(x.requests, y.requests, strict=True):
                texts += p.answer.text != q.answer.text
                most = max([most, *(abs(u - v) for u, v in zip(p.answer.logprobs, q.answer.logprobs, strict=True))])
    scores = sum(a.scores.tasks[task].score.value != b.scores.tasks[task].score.value for task in both)
    return {"failed": failed, "choices": choices, "texts": texts, "scores": scores, "logprobs": most}


def tell(**facts: Any) -> None:
    """Print a line of JSON."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(inner) for key, inner in value.items()}
        return round(value, 3) if isinstance(value, float) else value

    print(json.dumps(short(facts)), flush=True)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    model = Path("models/SmolLM2-135M-Instruct")
    one = parts.add_parser("actors")
    one.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    one.add_argument("--each", type=int, default=625, help="requests for each worker")
    one.add_argument("--model", type=Path, default=model)
    one.set_defaults(run=actors)
    two = parts.add_parser("engines")
    two.add_argument("--engine", default="vllm")
    two.add_argument("--limit", type=int, default=20)
    two.add_argument("--model", type=Path, default=model)
    two.set_defaults(run=engines)
    three = parts.add_parser("checkpoints")
    three.add_argument("--count", type=int, default=100)
    three.add_argument("--workers", type=int, default=2)
    three.set_defaults(run=checkpoints)
    four = parts.add_parser("faults")
    four.add_argument("--limit", type=int)
    four.add_argument("--every", type=float, default=20.0)
    four.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    four.add_argument("--model", type=Path, default=model)
    four.add_argument("--output", type=Path)
    four.set_defaults(run=faults)
    each = parts.add_parser("one-run")  # of `faults`
    each.add_argument("--way", choices=WAYS, required=True)
    each.add_argument("--limit", type=int)
    each.add_argument("--model", type=Path, required=True)
    each.add_argument("--output", type=Path, required=True)
    each.set_defaults(run=one_run)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
