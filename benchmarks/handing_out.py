"""Whether the driver keeps many workers busy, told apart from whether this machine can run so many processes.

    python benchmarks/handing_out.py [--workers 1 8 64 256] [--each 625] [--ray 1.0] [--model models/SmolLM2-135M-Instruct]

`scale.py actors` needs cores for as many processes. Here the driver's code and the workers' code are the same and run for real,
in one process, but workers have a clock of their own: a stand-in that sleeps only moves it on. The driver's clock runs with the
processor time of this process, without that of the workers' code; where the driver waits it jumps to the next message; and it
moves on by `--ray` milliseconds for each look at all workers, each message and each window, in place of Ray. A message is under
way for `TRAVEL` seconds. So it is the wall clock of a cluster on which each worker has a core, and the driver one.

Prints a JSON object a line: efficiency as in `scale.py`, and the share of time in which the driver was at work.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scale import StandIn, repeated, seconds_of

from darumeru.workers import worker
from darumeru.workers.messages import Answered, Message, ToLoad
from darumeru.workers.pool import Pool
from darumeru.workers.worker import Worker

TRAVEL = 0.005
"""Seconds from one process to another."""


class Clock:
    """Seconds of the driver: its processor time, and what it was made to jump.

    Args:
        ray: seconds that a call of Ray takes.
    """

    def __init__(self, ray: float) -> None:
        self.ray = ray
        self.jumped = self.waited = self.others = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return time.process_time() + self.jumped

    def call_ray(self) -> None:
        """Take the time of a call."""
        self.jumped += self.ray

    def leave_out(self, seconds: float) -> None:
        """Do not count processor time that a worker took."""
        self.jumped -= seconds
        self.others += seconds

    def wait_until(self, moment: float) -> None:
        """Jump there, if it lies ahead."""
        ahead = max(0.0, moment - self.monotonic())
        self.jumped += ahead
        self.waited += ahead


class OwnClock:
    """A worker's time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Arrivals:
    """What a worker was given: each has its time of arrival, until which the worker waits."""

    def __init__(self, clock: OwnClock) -> None:
        self._clock = clock
        self._given: deque[tuple[float, Any]] = deque()

    def add(self, arrival: float, what: Any) -> None:
        """Let something arrive."""
        self._given.append((arrival, what))

    def get(self) -> Any:
        """Return what arrived first."""
        arrival, what = self._given.popleft()
        self._clock.now = max(self._clock.now, arrival)
        return what

    def empty(self) -> bool:
        """Return whether nothing has arrived."""
        return not self._given or self._given[0][0] > self._clock.now


class Simulated:
    """A worker in this process, in the place of `Remote`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._own = clock, OwnClock()
        self._own.now = clock.monotonic()
        self._arrivals = Arrivals(self._own)
        holder = Worker()
        holder._given = self._arrivals
        holder.load = lambda model: StandIn(self._own)
        self._stream = holder.work()
        self._owed = 1
        self._said: Message | None = None

    def give(self, what: ToLoad | Sequence[Any]) -> None:
        """See `Remote.give`."""
        self._clock.call_ray()
        self._arrivals.add(self._clock.monotonic() + TRAVEL, what)
        self._owed += 1 if isinstance(what, ToLoad) else len(what)

    def comes(self) -> float | None:
        """Return when its next message is there; None where it has nothing to do."""
        if self._said is None and self._owed:
            worker.time = self._own  # type: ignore[attr-defined]
            began = time.thread_time()
            self._said = next(self._stream)
            self._clock.leave_out(time.thread_time() - began)
            self._owed -= len(self._said.answers) if isinstance(self._said, Answered) else 1
        return None if self._said is None else self._own.now + TRAVEL

    def hear(self) -> Message:
        """See `Remote.hear`."""
        self._clock.call_ray()
        said, self._said = self._said, None
        return said  # type: ignore[return-value]

    def end(self) -> None:
        """See `Remote.end`."""


class SimulatedCluster:
    """In the place of `Cluster`."""

    gpus = 0

    def __init__(self, count: int, ray: float) -> None:
        self.count, self.clock = count, Clock(ray)

    def wanted(self) -> int:
        """See `Cluster.wanted`."""
        return self.count

    def alive(self, node: str) -> bool:
        """See `Cluster.alive`."""
        return True

    def start(self) -> Simulated:
        """See `Cluster.start`."""
        return Simulated(self.clock)

    def ready(self, remotes: Sequence[Simulated], timeout: float) -> list[Simulated]:
        """See `Cluster.ready`."""
        self.clock.call_ray()
        coming = {remote: moment for remote in remotes if (moment := remote.comes()) is not None}
        if not coming:
            time.sleep(0.01)  # for whoever asks
            return []
        self.clock.wait_until(min(min(coming.values()), self.clock.monotonic() + timeout))
        return [remote for remote, moment in coming.items() if moment <= self.clock.monotonic()]


def measure(opened: Any, requests: Sequence[Any], count: int, each: int, ray: float) -> dict[str, Any]:
    """Return what so many workers lose."""
    asked = repeated(requests, count * each)
    cluster = SimulatedCluster(count, ray)
    pool = Pool(cluster, 1e9)
    try:
        with pool.load(opened, 0) as engine:
            while pool.summary() != f"{count} wait{'' if count > 1 else 's'}":
                time.sleep(0.01)
            clock = cluster.clock
            clock.waited = clock.others = 0.0
            began, processor = clock.monotonic(), time.process_time()
            answers = [answer for batch in engine.answers(asked) for answer in batch]
            wall, processor = clock.monotonic() - began, time.process_time() - processor
    finally:
        pool.close()
    if len({a.id for a in answers}) != len(asked):
        raise SystemExit("Not every request was answered once.")
    work = sum(map(seconds_of, asked))
    return {
        "workers": count,
        "requests": len(asked),
        "wall_seconds": round(wall, 2),
        "efficiency": round(work / (count * wall), 4),
        "driver_at_work": round(1 - clock.waited / wall, 4),
        "driver_cpu_seconds": round(processor - clock.others, 2),
        "workers_cpu_seconds": round(clock.others, 2),
    }


def main() -> None:
    """Print a line for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--each", type=int, default=625, help="requests for each worker")
    parser.add_argument("--ray", type=float, default=1.0, help="milliseconds of a call of Ray")
    parser.add_argument("--model", type=Path, default=Path("models/SmolLM2-135M-Instruct"))
    args = parser.parse_args()
    from darumeru.evaluation import prepare, settings_of

    plan = prepare(settings_of(model=str(args.model), data="mini", engine="hf", num_fewshot=0))
    for count in args.workers:
        print(json.dumps(measure(plan.opened, plan.requests, count, args.each, args.ray / 1e3)), flush=True)


if __name__ == "__main__":
    main()
