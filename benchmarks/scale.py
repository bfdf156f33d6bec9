"""Many workers: what is lost between them, two small engines beside a large one, and what a checkpoint costs.

    python benchmarks/scale.py actors [--workers 1 4 16 64] [--each 625] [--model models/SmolLM2-135M-Instruct]
    python benchmarks/scale.py engines [--engine vllm] [--limit 20] [--model models/SmolLM2-135M-Instruct]
    python benchmarks/scale.py checkpoints [--count 100] [--workers 2]

`actors`: workers on a simulated cluster (`ray.cluster_utils.Cluster`, 8 workers a node) hold a stand-in for an engine, which
sleeps as long as an 8B model on a fast GPU would compute (`PREFILL`, `DECODE`) on the requests of the mini bundle, repeated up
to `--each` for each worker. Efficiency is the seconds of all requests over workers times wall clock, from the first request to
the last answer. Beside it: the driver's processor time and the peak of its memory.

`engines`: the mini bundle by one engine with all cores in this process, and by two workers with half of them each.

`checkpoints`: `darumeru watch --once` over checkpoints of a tiny model, by workers and, for a fifth of them, each in a process of
its own; seconds a checkpoint, of them in the engine.

Each prints one JSON object a line. On a machine that does other work the figures say little.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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


class StandIn:
    """Sleeps in an engine's place."""

    follows = False

    def describe(self) -> dict[str, Any]:
        """What an engine says of itself."""
        return {"engine": "stand-in", "dtype": "float32"}

    def close(self) -> None:
        """There is nothing to free."""

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """Answer a batch at a time."""
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            time.sleep(sum(map(seconds_of, batch)))
            yield [Answer(r.id, logprobs=(0.0,), tokens=(0,) * r.max_tokens) for r in batch]


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
        total = count * args.each
        copies = -(-total // len(plan.requests))
        asked = [replace(r, id=f"{r.id}x{n}", prompt=r.packed) for n in range(copies) for r in plan.requests][:total]
        settings = WorkerSettings(workers=count, ray=simulated.address)
        with connected(settings, gpus=False, worker=StandInWorker) as cluster:
            cluster.cores = 1
            pool = Pool(cluster, settings.stall)
            with pool.load(plan.opened, plan.max_len) as engine:
                while "start" in pool.summary() or "load" in pool.summary():
                    time.sleep(0.1)
                began, spent = time.perf_counter(), time.process_time()
                answered = sum(len(batch) for batch in engine.answers(asked))
                wall, spent = time.perf_counter() - began, time.process_time() - spent
            pool.close()
        work = sum(map(seconds_of, asked))
        tell(
            part="actors", workers=count, requests=answered, wall_seconds=wall, efficiency=work / (count * wall),
            driver_cpu_seconds=spent, driver_peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )  # fmt: skip
    simulated.shutdown()


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
            engine = sum(run.scores.time.engine_seconds for run in find_runs(folder / "runs"))
            tell(
                part="checkpoints", workers=workers, count=count, seconds_each=wall / count, engine_each=engine / count
            )
            shutil.rmtree(folder / "runs")
            for step in range(args.count // 5 + 1, args.count + 1):
                shutil.rmtree(folder / "training" / f"checkpoint-{step}", ignore_errors=True)


def tell(**facts: Any) -> None:
    """Print a line of JSON."""
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in facts.items()}), flush=True)


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
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
