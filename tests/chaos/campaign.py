"""Trials drawn at random, until the time is over; and what came of them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .content import differences
from .faults import Fault, disk_full_at
from .process import apart, load
from .scenarios import Scenario
from .trial import Result, Trial, Undisturbed


@dataclass
class Report:
    """What a campaign came to."""

    seed: int
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    """Fault → why it cannot be made on this machine."""

    @property
    def broken(self) -> list[Result]:
        """Return the trials in which something did not hold."""
        return [result for result in self.results if result.wrong]

    def count(self, scenario: str, fault: str) -> tuple[int, int]:
        """Return how many trials there were, and in how many something did not hold."""
        of = [r for r in self.results if (r.scenario, r.fault) == (scenario, fault)]
        return len(of), sum(bool(r.wrong) for r in of)

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        faults = Counter(r.fault for r in self.results)
        return {
            "seed": self.seed,
            "seconds": round(self.seconds),
            "trials": len(self.results),
            "broken": len(self.broken),
            "refused": sum(r.refused for r in self.results),
            "faults": dict(sorted(faults.items())),
            "commands": dict(sorted(Counter(r.scenario for r in self.results).items())),
            "unavailable": self.unavailable,
            "results": [asdict(r) for r in self.results],
        }


class Campaign:
    """Scenarios that are disturbed, in a folder of their own.

    Args:
        scenarios: kinds of them.
        folder: a folder for all of it.
        say: receives a sentence for what takes long.
    """

    def __init__(self, scenarios: Sequence[type[Scenario]], folder: Path, say: Callable[[str], None]) -> None:
        self.scenarios: dict[str, Scenario] = {}
        self.usual: dict[str, Undisturbed] = {}
        self._place = folder / "trial"
        modules = folder / "modules.json"
        for kind in scenarios:
            say(f"{kind.name}: undisturbed")
            scenario = kind(folder / "inputs" / kind.name)
            apart(scenario.make, modules)
            load(modules)
            first = Trial(scenario, self._place, f"{kind.name}-first").measure(modules)
            if not kind.fresh:
                load(modules)
            usual = Trial(scenario, self._place, f"{kind.name}-usual").measure(modules)
            if unlike := differences(usual.content, first.content):
                raise RuntimeError(f"{kind.name} leaves different things undisturbed: {'; '.join(unlike[:5])}")
            self.scenarios[kind.name], self.usual[kind.name] = scenario, usual

    def trial(self, name: str, fault: Fault, seed: str) -> Result:
        """Disturb one scenario."""
        return Trial(self.scenarios[name], self._place, seed, self.usual[name]).run(fault)

    def run(self, faults: Sequence[Fault], seed: int, seconds: float, trials: int) -> Iterator[Result]:
        """Yield what comes of trials that are drawn at random, as they end, until time or number is reached.

        Scenarios come in turn, so that each gets the same number of trials; the faults are drawn without replacement until all
        were had.
        """
        deadline, draw = time.monotonic() + seconds, random.Random(seed)
        waiting: dict[str, list[Fault]] = {name: [] for name in self.scenarios}
        number = 0
        while True:
            for name, left in waiting.items():
                if time.monotonic() > deadline or number == trials:
                    return
                if not left:
                    left += draw.sample(list(faults), len(faults))
                number += 1
                yield self.trial(name, left.pop(), f"{seed}-{number}-{name}")

    def run_each_call(self, seed: int) -> Iterator[Result]:
        """Yield what comes of a full disk from each call on that changes a file, of each scenario."""
        for name, usual in self.usual.items():
            for call in range(1, usual.calls + 1):
                yield self.trial(name, disk_full_at(call), f"{seed}-{call}-{name}")
