"""Checkpoints of a training, evaluated by two workers beside it, while both are killed and started again.

    python benchmarks/watching.py [--count 30] [--workers 2] [--kills 3] [--output FILE]

`lep pretrain` trains a tiny model and writes `--count` checkpoints; `darumeru watch --workers` evaluates them beside it. Both are
killed with SIGKILL `--kills` times each, at even distances, and started again with the same commands. Then a fifth of the
checkpoints are evaluated once more, each in a process of its own (`darumeru watch --once`). Told are: checkpoints that were
written, records of them, answers that were stored twice, and documents whose choice or text differs from that of the second
evaluation. Ends with 1 unless there is one record of each checkpoint, nothing was stored twice, and nothing differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from darumeru.files import write_json
from darumeru.record.run import Run, find_runs, load_run

ROOT = Path(__file__).resolve().parents[1]
SPY = ROOT / "tests" / "chaos" / "preloaded"
"""Notes what each process stores, in the file that CHAOS_SPY names."""
STEPS = 4
"""Between checkpoints."""
MOST = 1200.0
"""Seconds for all of it."""


def answers(run: Run) -> dict[str, Any]:
    """Return choices and texts of a run, by task and document."""
    return {
        f"{task}/{sample.id}": [sample.pred, *(q.answer.text for q in sample.requests)]
        for task in run.tasks
        for sample in run.samples(task)
    }


class Both:
    """Training and watch, as processes that are killed and started again."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        from support.pipeline import texts, words
        from support.tiny import make_model

        make_model(folder / "base", chat=False)
        texts(folder / "ru.jsonl", words("Cyrillic"), 4000, seed=0)
        self.folder, self.checkpoints = folder, folder / "training" / "checkpoints"
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(SPY), str(ROOT / "tests"), str(ROOT)]), "CHAOS_SPY": str(folder / "stored"),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.train = [
            sys.executable, "-m", "lep", "pretrain", "--model", folder / "base", "--corpus", folder / "ru.jsonl",
            "--output", folder / "training", "--train", "all", "--block-size", "64", "--total-batch-size", "256",
            "--max-steps", STEPS * args.count, "--save-steps", STEPS, "--warmup-steps", "2", "--device", "cpu",
        ]  # fmt: skip
        self.watch = [
            *self.evaluation(self.checkpoints, folder / "runs"), "--workers", args.workers,
            "--until-step", STEPS * args.count,
        ]  # fmt: skip
        self.killed: Counter[str] = Counter()

    @staticmethod
    def evaluation(checkpoints: Path, output: Path) -> list[Any]:
        """Return the command that evaluates checkpoints."""
        return [
            sys.executable, "-c", "from darumeru.cli import main; main()", "watch", checkpoints, "--data", "mini", "--engine",
            "hf", "--device", "cpu", "--dtype", "float32", "--tasks", "rwsd_tenth,cp_sent_ru", "--num-fewshot", "0", "--limit",
            "12", "--poll", "0.5", "--output", output, "--name", "training",
        ]  # fmt: skip

    def start(self, command: list[Any]) -> subprocess.Popen[bytes]:
        """Start one of them."""
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen([*map(str, command)], env=self.environment, stdout=said, stderr=said)

    def written(self) -> int:
        """Return how many checkpoints there are."""
        return len([*self.checkpoints.glob("checkpoint-*/trainer_state.json")])

    def done(self) -> int:
        """Return how many were evaluated."""
        return len([*self.folder.glob("runs/*/manifest.json")])

    def run(self, count: int, kills: int) -> None:
        """Run both to their end, killing each so many times."""
        until, began = [count * (k + 1) // (kills + 1) for k in range(kills)], time.monotonic()
        running = {"training": self.start(self.train)}
        while not self.checkpoints.is_dir() and running["training"].poll() is None:
            time.sleep(0.05)
        running["watch"] = self.start(self.watch)
        commands, seen = {"training": self.train, "watch": self.watch}, {"training": self.written, "watch": self.done}
        try:
            while any(process.poll() is None for process in running.values()):
                if time.monotonic() - began > MOST:
                    raise SystemExit(f"Not done after {MOST:g} s: {(self.folder / 'said').read_text()[-2000:]}")
                for name, process in running.items():
                    if (
                        process.poll() is None
                        and self.killed[name] < kills
                        and seen[name]() >= until[self.killed[name]]
                    ):
                        process.kill()
                        process.wait()
                        self.killed[name] += 1
                        running[name] = self.start(commands[name])
                time.sleep(0.05)
        finally:
            for process in running.values():
                process.kill()
        if any(process.returncode for process in running.values()):
            raise SystemExit((self.folder / "said").read_text()[-2000:])


def main() -> None:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both = Both(folder, args)
        began = time.monotonic()
        both.run(args.count, args.kills)
        seconds = time.monotonic() - began
        runs = {run.header["training"]["step"]: run for run in find_runs(folder / "runs") if run.complete}
        stored = Counter((folder / "stored").read_text().splitlines())
        again = sorted(runs)[::5]
        for step in again:
            shutil.copytree(both.checkpoints / f"checkpoint-{step}", folder / "again" / f"checkpoint-{step}")
        command = [*both.evaluation(folder / "again", folder / "second"), "--once"]
        subprocess.run(
            [*map(str, command)], check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        second = {run.header["training"]["step"]: run for run in map(load_run, (folder / "second").iterdir())}
        differing = sum(
            found != answers(second[step]).get(key) for step in again for key, found in answers(runs[step]).items()
        )
        row = {
            "checkpoints": both.written(), "records": len(runs), "unfinished": len(find_runs(folder / "runs")) - len(runs),
            "training killed": both.killed["training"], "watch killed": both.killed["watch"], "stored": len(stored),
            "stored twice": sum(count > 1 for count in stored.values()), "compared": len(again), "differing": differing,
            "seconds": round(seconds, 1),
        }  # fmt: skip
    table = Table(*row)
    table.add_row(*map(str, row.values()))
    Console(width=160).print(table)
    print(json.dumps(row))
    if args.output:
        write_json(args.output, row)
    if row["records"] != args.count or row["unfinished"] or row["stored twice"] or differing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
