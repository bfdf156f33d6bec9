"""Do two engines say the same of one model? Evaluates it with both and prints where their answers differ.

    python benchmarks/agreement.py --model DIR --data mini [--tasks …] [--limit N] [--dtype float32] [--output runs]
    python benchmarks/agreement.py --runs RUN RUN        # two records that are there: of two machines, say

Each engine runs in a process of its own. Choices and rankings are compared by the chosen label and by the largest difference
of log-probabilities, texts by their tokens.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darumeru.record.run import Run, load_run
from darumeru.record.sample import Sample


@dataclass
class Agreement:
    """How far two runs agree on a task."""

    samples: int = 0
    same: int = 0
    """Samples with the same chosen label, the same ranking of the chosen sentences, or the same text."""
    largest: float = 0.0
    """Largest difference of log-probabilities."""
    differing: list[str] = field(default_factory=list)
    """What differs, in words."""


def chosen(sample: Sample) -> Any:
    """What a model decided on a sample: label(s), best-ranked sentences, or the text."""
    if sample.pred is not None:
        return [sample.pred, sample.extra.get("pred_swapped")]
    if "top" in sample.extra:
        return sorted(sample.extra["top"])
    return sample.requests[0].answer.tokens


def agreement(a: Run, b: Run) -> dict[str, Agreement]:
    """Compare two runs sample by sample, by task."""
    found = {}
    if not (both := [task for task in a.tasks if task in b.tasks]):
        raise SystemExit("The runs have no task in common.")
    for task in both:
        result = found[task] = Agreement()
        samples = list(a.samples(task)), list(b.samples(task))
        if [x.id for x in samples[0]] != [y.id for y in samples[1]]:
            raise SystemExit(f"{task}: the runs are of different samples")
        for x, y in zip(*samples, strict=True):
            result.samples += 1
            result.same += chosen(x) == chosen(y)
            for p, q in zip(x.requests, y.requests, strict=True):
                if p.prompt != q.prompt:
                    raise SystemExit(f"{task}/{x.id}: the runs have different prompts")
                pairs = zip(p.answer.logprobs, q.answer.logprobs, strict=True)
                result.largest = max([result.largest, *(abs(u - v) for u, v in pairs)])
            if chosen(x) != chosen(y):
                texts = [s.requests[0].answer.text for s in (x, y)]
                at = next((i for i, (u, v) in enumerate(zip(*texts, strict=False)) if u != v), min(map(len, texts)))
                what = [
                    f"…{t[max(0, at - 20) : at + 40]!r}" if t else str(chosen(s))
                    for t, s in zip(texts, (x, y), strict=True)
                ]
                result.differing.append(f"{task}/{x.id}: {what[0]} | {what[1]}")
    return found


def evaluate(engine: str, arguments: list[str]) -> Run:
    """Run one engine in a process of its own."""
    command = [
        sys.executable,
        "-c",
        "from darumeru.cli import main; main()",
        "run",
        "--engine",
        engine,
        "--json",
        *arguments,
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return load_run(json.loads(done.stdout[done.stdout.index("{\n") :])["run"])


def main() -> None:
    """Evaluate with both engines and print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model")
    what.add_argument("--runs", nargs=2, type=Path, metavar="RUN")
    parser.add_argument("--data", default="mini")
    parser.add_argument("--tasks")
    parser.add_argument("--limit")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", default="runs")
    parser.add_argument("--engines", default="hf,vllm")
    options = parser.parse_args()
    arguments = [
        part
        for name in ("model", "data", "tasks", "limit", "dtype", "output")
        if getattr(options, name)
        for part in (f"--{name}", getattr(options, name))
    ]
    runs = map(load_run, options.runs) if options.runs else (evaluate(e, arguments) for e in options.engines.split(","))
    a, b = runs
    report(agreement(a, b))
    print(f"{Path(a.path)}\n{Path(b.path)}")


def report(found: dict[str, Agreement]) -> None:
    """Print the agreement."""
    print(f"{'task':<20}{'samples':>8}{'same':>6}{'largest difference of log-probabilities':>42}")
    for task, result in found.items():
        print(f"{task:<20}{result.samples:>8}{result.same:>6}{result.largest:>42.2e}")
    print(f"{'all':<20}{sum(r.samples for r in found.values()):>8}{sum(r.same for r in found.values()):>6}")
    for line in (line for result in found.values() for line in result.differing):
        print(line)


if __name__ == "__main__":
    main()
