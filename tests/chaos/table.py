"""The table of `docs/reliability.md`, in Markdown, from a campaign's report: `python -m tests.chaos.table chaos.json`."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_markdown(report: Mapping[str, Any]) -> str:
    """Return the trials by fault and command; those in which something did not hold after a slash.

    Args:
        report: as `Report.to_json` gives it.
    """
    trials = Counter((r["fault"], r["scenario"]) for r in report["results"])
    broken = Counter((r["fault"], r["scenario"]) for r in report["results"] if r["wrong"])
    commands, faults = sorted({c for _, c in trials}), sorted({f for f, _ in trials})

    def cell(pairs: list[tuple[str, str]]) -> str:
        number, wrong = sum(trials[p] for p in pairs), sum(broken[p] for p in pairs)
        return f"{number} / {wrong}" if wrong else str(number or "")

    rows = [["fault", *commands, "all"], ["---", *(["---:"] * (len(commands) + 1))]]
    for fault in faults:
        rows.append(
            [fault.replace("_", " "), *(cell([(fault, c)]) for c in commands), cell([(fault, c) for c in commands])]
        )
    rows.append(["all", *(cell([(f, c) for f in faults]) for c in commands), cell(list(trials))])
    starts = sum(len(r["starts"]) for r in report["results"])
    told = (
        f"{report['trials']} trials with {starts} starts in {report['seconds'] / 60:.0f} minutes, seed {report['seed']}: "
        f"{report['broken']} broke something; in {report['refused']} a damaged file was refused in a sentence."
    )
    absent = [f"Not made here: {fault.replace('_', ' ')} ({why})." for fault, why in report["unavailable"].items()]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", told, *absent])


if __name__ == "__main__":
    print(to_markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
