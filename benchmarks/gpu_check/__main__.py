"""The command; see the package."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.gpu_check.check import ROOT, Check, FailedError, LacksError, Place, Verdict
from benchmarks.gpu_check.checks import checks, make_model
from darumeru.doctor import diagnose

RESULTS = ROOT / "benchmarks" / "results"
STYLE = {"ok": "green", "skipped": "dim", "DIFFERS": "red", "FAILED": "red"}


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    check: str
    expected: str
    found: str
    verdict: Verdict
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


def done(check: Check, place: Place, gpus: int) -> Row:
    """Run a check if it can run here."""
    if reason := check.lacks(gpus):
        return Row(check.name, check.expected, reason, "skipped")
    began = time.perf_counter()
    try:
        found = check.run(place)
    except LacksError as error:
        return Row(check.name, check.expected, str(error), "skipped")
    except FailedError as error:
        return Row(check.name, check.expected, str(error), "FAILED", time.perf_counter() - began)
    except Exception as error:  # one check that breaks is a finding, not the end of the others
        return Row(
            check.name, check.expected, f"{type(error).__name__}: {error}"[:400], "FAILED", time.perf_counter() - began
        )
    verdict: Verdict = "ok" if found.ok else "DIFFERS"
    return Row(check.name, check.expected, found.text, verdict, round(time.perf_counter() - began, 1), found.figures)


def main() -> int:
    """Run all, print and write the table."""
    parser = argparse.ArgumentParser(prog="gpu_check", description="What only a GPU or a bigger model shows.")
    parser.add_argument("--model", type=Path, help="model for the figures [SmolLM2-135M-Instruct]")
    parser.add_argument(
        "--also", type=Path, nargs="*", default=[], help="folders of models to hold against plain passes"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="WORD", help="only checks whose name has one of these words"
    )
    parser.add_argument("--list", action="store_true", help="only say what would run")
    parser.add_argument("--output", type=Path, help="[benchmarks/results/gpu-NAME.json, on a GPU]")
    chosen = parser.parse_args()
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = torch.cuda.get_device_name(0) if gpus else "none"
    all_checks = [
        c for c in checks(tuple(chosen.also)) if not chosen.only or any(word in c.name for word in chosen.only)
    ]
    screen = Console(highlight=False)
    if chosen.list:
        for check in all_checks:
            screen.print(Text(f"{check.name}: {check.lacks(gpus) or 'runs here'}"), soft_wrap=True)
        return 0
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_model(Path(folder) / "tiny")
        for number, check in enumerate(all_checks):
            own = Path(folder) / str(number)
            own.mkdir()
            place = Place(own, tiny, chosen.model, "cuda" if gpus else "cpu", tuple(chosen.also))
            rows.append(done(check, place, gpus))
            if rows[-1].verdict != "skipped":
                print(f"{rows[-1].verdict}: {check.name} ({rows[-1].seconds:.0f} s)", file=sys.stderr, flush=True)
    screen.print(
        table_of(rows, f"{gpus} x {name}" if gpus else f"no GPU ({platform.processor() or platform.machine()})")
    )
    counts = {
        verdict: sum(row.verdict == verdict for row in rows) for verdict in ("ok", "DIFFERS", "FAILED", "skipped")
    }
    screen.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    output = chosen.output or (RESULTS / f"gpu-{name.lower().replace(' ', '-')}.json" if gpus else None)
    if output is not None:
        content = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "gpus": [torch.cuda.get_device_name(i) for i in range(gpus)],
            "machine": [asdict(f) for f in diagnose().findings if f.part in ("packages", "devices", "engines")],
            "checks": [asdict(row) for row in rows],
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        screen.print(Text(str(output)))
    return 1 if counts["DIFFERS"] or counts["FAILED"] else 0


def table_of(rows: list[Row], title: str) -> Table:
    """Expected and found."""
    table = Table(title=Text(title), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("check", "expected", "found", "", "s"):
        table.add_column(column, justify="right" if column == "s" else "left", overflow="fold")
    for row in rows:
        seconds = f"{row.seconds:.0f}" if row.verdict != "skipped" else ""
        table.add_row(
            Text(row.check), Text(row.expected), Text(row.found), Text(row.verdict, STYLE[row.verdict]), seconds
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
