"""How often a gate's rule is wrong, and how often it decides: simulated pairs of runs, right or wrong on each document.

    python benchmarks/gate.py [--simulations 4000] [--seed 0] [--output benchmarks/results/gate.json]

Two models answer n documents of each of one or 17 tasks; they differ on a share of them (`differ`). At a true difference of
exactly minus the margin both verdicts are wrong; the level of each is 2.5 %. At a difference of 0 the rule should say GO.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from darumeru.files import write_json
from darumeru.scoring.margin import MeanOfTasks, Part, one_sided

SIZES = {1: (20, 50, 100, 400, 1600), 17: (10, 30, 100)}
"""Tasks → documents of each."""
MARGINS = (0.01, 0.02, 0.05)
DIFFER = (0.05, 0.2)
ALPHA = 0.025


def rates(
    tasks: int, n: int, margin: float, differ: float, true: float, simulations: int, seed: int
) -> tuple[float, float]:
    """Return the shares of simulations that end in GO and in NO-GO.

    Args:
        tasks: whose mean the rule is about.
        n: documents of each.
        margin: of the rule.
        differ: share of documents on which one model alone is right.
        true: difference, run minus baseline.
        simulations: how many.
        seed: of the random numbers.
    """
    share = max(differ, abs(true))
    chances = [(share + true) / 2, (share - true) / 2, 1 - share]
    counts = np.random.default_rng(seed).multinomial(n, chances, size=(simulations, tasks))[..., :2]
    cases, often = np.unique(counts.reshape(simulations, -1), axis=0, return_counts=True)
    go = no_go = 0
    for case, count in zip(cases.reshape(len(cases), tasks, 2), often, strict=True):
        parts = []
        for won, lost in case.tolist():
            error = float(
                np.sqrt(max((won + lost) / n - ((won - lost) / n) ** 2, 0.0) / n)
            )  # what a bootstrap's draws have
            parts.append(Part(error, n, n, n, True, (won, lost)))
        value = float((case[:, 0] - case[:, 1]).mean() / n)
        error = float(np.sqrt(sum(p.error**2 for p in parts))) / tasks
        test = one_sided(MeanOfTasks(value, error, tuple(parts), tasks * (n - 1)), -margin)
        go += int(count) * (test.above < ALPHA)
        no_go += int(count) * (test.below < ALPHA)
    return go / simulations, no_go / simulations


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    print("| tasks | documents each | margin | differ | false GO | false NO-GO | GO at no difference |")
    print("| --: | --: | --: | --: | --: | --: | --: |")
    rows = []
    for tasks, n, margin, differ in ((k, n, m, d) for k in SIZES for n in SIZES[k] for m in MARGINS for d in DIFFER):
        wrong = rates(tasks, n, margin, differ, -margin, given.simulations, given.seed)
        right = rates(tasks, n, margin, differ, 0.0, given.simulations, given.seed)[0]
        cells = [f"{100 * v:.1f} %" for v in (*wrong, right)]
        print(f"| {tasks} | {n} | {margin} | {differ} | " + " | ".join(cells) + " |")
        rows.append(
            {"tasks": tasks, "documents": n, "margin": margin, "differ": differ,
             "false_go": wrong[0], "false_no_go": wrong[1], "go_at_no_difference": right}
        )  # fmt: skip
    if given.output:
        write_json(given.output, {"simulations": given.simulations, "seed": given.seed, "rows": rows})


if __name__ == "__main__":
    main()
