"""How often a gate's rule is wrong, and how often it decides: simulated pairs of runs, right or wrong on each document.

    python benchmarks/gate.py [--simulations 4000] [--seed 0] [--output benchmarks/results/gate.json]

Two models answer n documents of one task; they differ on a share of them (`discordant`). At a true difference of exactly
minus the margin both verdicts are wrong; the level of each is 2.5 %. At a difference of 0 the rule should say GO.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from darumeru.files import write_json
from darumeru.scoring.margin import Estimate, Part, one_sided

SIZES = (20, 50, 100, 400, 1600)
MARGINS = (0.01, 0.02, 0.05)
DISCORDANT = (0.05, 0.2)
ALPHA = 0.025


def rates(n: int, margin: float, discordant: float, true: float, simulations: int, seed: int) -> tuple[float, float]:
    """Return the shares of simulations that end in GO and in NO-GO.

    Args:
        n: documents.
        margin: of the rule.
        discordant: share of documents on which one model alone is right.
        true: difference, run minus baseline.
        simulations: how many.
        seed: of the random numbers.
    """
    share = max(discordant, abs(true))
    wins, losses, _ = (
        np.random.default_rng(seed)
        .multinomial(n, [(share + true) / 2, (share - true) / 2, 1 - share], size=simulations)
        .T
    )
    pairs, counts = np.unique(np.stack([wins, losses], axis=1), axis=0, return_counts=True)
    go = no_go = 0
    for (won, lost), count in zip(pairs, counts, strict=True):
        value = (won - lost) / n
        error = float(np.sqrt(max((won + lost) / n - value**2, 0.0) / n))  # what a bootstrap's draws have
        test = one_sided(Estimate(value, error, (Part(error, n, n, n, True, (int(won), int(lost))),)), -margin)
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
    print("|    n | margin | discordant | false GO | false NO-GO | GO at no difference |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    rows = []
    for n in SIZES:
        for margin in MARGINS:
            for discordant in DISCORDANT:
                wrong = rates(n, margin, discordant, -margin, given.simulations, given.seed)
                right = rates(n, margin, discordant, 0.0, given.simulations, given.seed)[0]
                cells = [f"{100 * v:.1f} %" for v in (*wrong, right)]
                print(f"| {n} | {margin} | {discordant} | " + " | ".join(cells) + " |")
                rows.append(
                    {"n": n, "margin": margin, "discordant": discordant,
                     "false_go": wrong[0], "false_no_go": wrong[1], "go_at_no_difference": right}
                )  # fmt: skip
    if given.output:
        write_json(given.output, {"simulations": given.simulations, "seed": given.seed, "rows": rows})


if __name__ == "__main__":
    main()
