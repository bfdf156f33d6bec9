"""A run killed with SIGKILL resumes where it stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from darumeru.record.run import Journal, load_run
from support.runs import comparable, samples


def test_kill_in_the_middle_then_the_same_command(tiny_base: Path, tmp_path: Path) -> None:
    """A real process on a real (tiny) model, killed with SIGKILL."""
    command = [
        sys.executable, "-c", "from darumeru.cli import main; main()", "run", "--model", str(tiny_base), "--data", "mini",
        "--engine", "hf", "--dtype", "float32", "--tasks", "parus,sum_extractive,cp_sent_ru", "--num-fewshot", "1",
        "--model-args", "batch_tokens=400",
    ]  # fmt: skip
    process = subprocess.Popen([*command, "--output", str(tmp_path / "a")], stdout=subprocess.DEVNULL)
    journal: Path | None = None
    deadline = time.monotonic() + 120
    while journal is None or journal.stat().st_size < 3000:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        journal = next((tmp_path / "a").glob("*/journal.jsonl"), None)
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stored = set(Journal(journal).answers)
    assert stored

    log = tmp_path / "asked.txt"
    spy = (
        "import darumeru.record.run as r, pathlib\n"
        "old = r.Journal.append\n"
        "def append(self, batch, *rest):\n"
        f"    pathlib.Path({str(log)!r}).open('a').write(''.join(a.id + '\\n' for a in batch))\n"
        "    old(self, batch, *rest)\n"
        "r.Journal.append = append\n"
    )
    subprocess.run(
        [command[0], "-c", spy + command[2], *command[3:], "--output", str(tmp_path / "a")],
        check=True,
        capture_output=True,
    )
    computed = log.read_text(encoding="utf-8").split()
    assert len(computed) == len(set(computed))
    assert not stored & set(computed), "a stored answer was computed again"
    subprocess.run([*command, "--output", str(tmp_path / "b")], check=True, capture_output=True)
    resumed, whole = (load_run(next((tmp_path / x).iterdir())) for x in "ab")
    assert samples(resumed) == samples(whole)
    assert comparable(resumed.scores) == comparable(whole.scores)
    assert resumed.path.name == whole.path.name
    asked = sum(len(sample["requests"]) for task in whole.tasks for sample in whole.samples(task))
    assert len(stored) + len(computed) == asked, "each answer was computed once"
