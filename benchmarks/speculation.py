"""Speculation on tasks that copy: does vLLM write the same tokens, and how much sooner?

    python benchmarks/speculation.py --model DIR [--data mini] [--tasks cp_sent_en,…] [--limit N] [--dtype float32] [--output F]

One process loads the model twice, without speculation and with it, and has both answer every text of the tasks, one task after
another, after a warm-up on one text. For each task: texts, tokens, how many texts have the same tokens, tokens a pass (of the
plain answers, by `darumeru.engines.vllm.speculation.passes`), seconds of wall clock and of processor time on both sides, and the
factor by each. On a machine that computes something else too, processor time tells more; then OMP_NUM_THREADS=1 and
VLLM_CPU_OMP_THREADS_BIND=nobind keep threads from waiting for each other. Ends with 1 where tokens differ.
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
    from darumeru.engines.vllm.speculation import passes

    tasks = options.tasks.split(",")
    sides = {}
    for speculate in ("off", "on"):
        plan = texts(options.model, options.data, tasks, options.limit, options.dtype, speculate)
        sides[speculate] = side(plan, tasks)
    table = Table(
        "Task", "Texts", "Tokens", "Same tokens", "Tokens a pass", "Plain, s", "Speculating, s", "Factor", "of CPU"
    )
    rows = []
    for task in tasks:
        plain, fast = sides["off"][task], sides["on"][task]
        asked = {r.id: r for r in of_task(plan.requests, task)}
        count = sum(map(len, plain["tokens"].values()))
        taken = sum(passes(asked[id_].prompt, tokens) for id_, tokens in plain["tokens"].items())
        row = {
            "task": task,
            "texts": len(asked),
            "tokens": count,
            "same": sum(fast["tokens"].get(id_) == tokens for id_, tokens in plain["tokens"].items()),
            "tokens_a_pass": count / max(1, taken),
            "plain": {key: plain[key] for key in ("seconds", "processor")},
            "speculating": {key: fast[key] for key in ("seconds", "processor")},
        }
        rows.append(row)
        factors = [plain[key] / fast[key] for key in ("seconds", "processor")]
        table.add_row(
            task, str(row["texts"]), str(count), str(row["same"]), f"{row['tokens_a_pass']:.1f}", str(plain["seconds"]),
            str(fast["seconds"]), f"{factors[0]:.2f}", f"{factors[1]:.2f}",
        )  # fmt: skip
    Console(width=140).print(table)
    if options.output:
        options.output.write_text(
            json.dumps({"dtype": options.dtype, "data": options.data, "tasks": rows}, indent=2) + "\n"
        )
    if any(row["same"] != row["texts"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
