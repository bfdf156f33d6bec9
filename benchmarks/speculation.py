"""Speculation on tasks that copy: does vLLM write the same tokens, and how much sooner?

    python benchmarks/speculation.py --model DIR [--data mini] [--tasks cp_sent_en,…] [--limit N] [--dtype float32] [--output F]

A bundle with more texts than the mini one is made of any corpus, for both languages:

    darumeru data import copy CORPUS_EN --lang en --rows 200 --output BUNDLE
    darumeru data import copy CORPUS_RU --lang ru --rows 200 --output BUNDLE

One process loads the model twice, without speculation and with it, and has both answer every text of the tasks, one task after
another, after a warm-up on one text. For each task, and for all together: texts, tokens, how many texts have the same tokens,
tokens a pass (of the plain answers, by `darumeru.engines.vllm.speculation.passes`), seconds of wall clock and of processor time
on both sides, and the factor by each. On a machine that computes something else too, processor time tells more; then
OMP_NUM_THREADS=1 and VLLM_CPU_OMP_THREADS_BIND=nobind keep threads from waiting for each other. Ends with 1, and the names of the
texts, where tokens differ.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from darumeru.requests import Request

COPIES = "cp_sent_en,cp_para_en,cp_sent_ru,cp_para_ru"

TIMES = ("seconds", "processor")
"""Of the wall clock, and of the processor."""


def texts(model: Path, data: str, tasks: list[str], limit: int | None, dtype: str, speculate: str) -> Any:
    """Return the plan of a run of these tasks by vLLM."""
    from darumeru.evaluation import prepare
    from darumeru.settings import settings_of

    return prepare(
        settings_of(
            model=str(model), data=data, tasks=tasks, limit=limit, engine="vllm", dtype=dtype,
            model_args={"speculate": speculate},
        )
    )  # fmt: skip


def side(plan: Any, tasks: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each task the tokens of its texts and the seconds that they took."""
    found: dict[str, dict[str, Any]] = {}
    with plan.opened.load(plan.max_len) as engine:
        list(engine.answers(plan.requests[-1:]))
        for task in tasks:
            asked = of_task(plan.requests, task)
            wall, processor = time.perf_counter(), time.process_time()
            tokens = {a.id: list(a.tokens) for batch in engine.answers(asked) for a in batch}
            found[task] = {
                "tokens": tokens,
                "seconds": round(time.perf_counter() - wall, 2),
                "processor": round(time.process_time() - processor, 2),
            }
            print(f"{task}: {found[task]['seconds']} s", file=sys.stderr, flush=True)
    return found


def of_task(requests: list[Request], task: str) -> list[Request]:
    """Return the requests of a task that are answered by a text."""
    return [r for r in requests if r.kind == "generate" and r.id.startswith(f"{task}/")]


def compared(task: str, asked: dict[str, Request], plain: dict[str, Any], fast: dict[str, Any]) -> dict[str, Any]:
    """Return what the two sides made of a task."""
    from darumeru.engines.vllm.speculation import passes

    differing = [id_ for id_ in asked if fast["tokens"].get(id_) != plain["tokens"].get(id_)]
    return {
        "task": task,
        "texts": len(asked),
        "tokens": sum(map(len, plain["tokens"].values())),
        "same": len(asked) - len(differing),
        "differing": differing,
        "passes": sum(passes(asked[id_].prompt, tokens) for id_, tokens in plain["tokens"].items()),
        "plain": {key: plain[key] for key in TIMES},
        "speculating": {key: fast[key] for key in TIMES},
    }


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over all tasks; which texts differ stands with their tasks."""
    sides = {s: {key: round(sum(row[s][key] for row in rows), 2) for key in TIMES} for s in ("plain", "speculating")}
    counts = {key: sum(row[key] for row in rows) for key in ("texts", "tokens", "same", "passes")}
    return {"task": "all", **counts, "differing": [], **sides}


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", default="mini")
    parser.add_argument("--tasks", default=COPIES)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    tasks = options.tasks.split(",")
    sides = {}
    for speculate in ("off", "on"):
        plan = texts(options.model, options.data, tasks, options.limit, options.dtype, speculate)
        sides[speculate] = side(plan, tasks)
    asked = {task: {r.id: r for r in of_task(plan.requests, task)} for task in tasks}
    rows = [compared(task, asked[task], sides["off"][task], sides["on"][task]) for task in tasks]
    rows.append(together(rows))
    table = Table(
        "Task", "Texts", "Tokens", "Same tokens", "Tokens a pass", "Plain, s", "Speculating, s", "Factor", "of CPU"
    )
    for row in rows:
        plain, fast = row["plain"], row["speculating"]
        table.add_row(
            row["task"], str(row["texts"]), str(row["tokens"]), str(row["same"]), f"{row['tokens'] / max(1, row['passes']):.1f}",
            f"{plain['seconds']:.2f}", f"{fast['seconds']:.2f}",
            *(f"{plain[key] / max(fast[key], 0.01):.2f}" for key in TIMES),
        )  # fmt: skip
    Console(width=140).print(table)
    if options.output:
        options.output.write_text(
            json.dumps({"dtype": options.dtype, "data": options.data, "tasks": rows}, indent=2) + "\n"
        )
    if differing := [id_ for row in rows for id_ in row["differing"]]:
        raise SystemExit(f"Other tokens with speculation: {', '.join(differing)}")


if __name__ == "__main__":
    main()
