"""A run killed with SIGKILL resumes where it stopped."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from darumeru.record.run import Journal, load_run
from support.forked import darumeru, fork
from support.runs import comparable, samples

pytestmark = pytest.mark.xdist_group("forked")


def spied(log: Path, *command: str) -> None:
    """Be a command that notes which answers it computes."""
    append = Journal.append

    def noted(self: Journal, batch: Any, *rest: Any) -> None:
        with log.open("a") as file:
            file.write("".join(a.id + "\n" for a in batch))
        append(self, batch, *rest)

    Journal.append = noted  # type: ignore[method-assign]
    darumeru(*command)


def test_kill_in_the_middle_then_the_same_command(tiny_base: Path, tmp_path: Path) -> None:
    """A real process on a real (tiny) model, killed with SIGKILL."""
    command = [
        "run", "--model", str(tiny_base), "--data", "mini", "--engine", "hf", "--device", "cpu", "--dtype", "float32", "--tasks",
        "parus,sum_extractive,cp_sent_ru", "--num-fewshot", "1", "--model-args", "batch_tokens=400", "--output",
    ]  # fmt: skip
    said = tmp_path / "said.txt"
    process = fork(darumeru, *command, str(tmp_path / "a"), said=said)
    journal: Path | None = None
    deadline = time.monotonic() + 400
    while journal is None or journal.stat().st_size < 3000:
        assert process.exitcode is None, "the run ended before it could be killed\n" + said.read_text()
        assert time.monotonic() < deadline
        journal = next((tmp_path / "a").glob("*/journal.jsonl"), None)
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    stored = set(Journal(journal).answers)
    assert stored

    log = tmp_path / "asked.txt"
    again = fork(spied, log, *command, str(tmp_path / "a"), said=said)
    whole_too = fork(darumeru, *command, str(tmp_path / "b"), said=said)
    for process in (again, whole_too):
        process.join()
        assert process.exitcode == 0, said.read_text()
    computed = log.read_text(encoding="utf-8").split()
    assert len(computed) == len(set(computed))
    assert not stored & set(computed), "a stored answer was computed again"
    resumed, whole = (load_run(next((tmp_path / x).iterdir())) for x in "ab")
    assert samples(resumed) == samples(whole)
    assert comparable(resumed.scores) == comparable(whole.scores)
    assert resumed.path.name == whole.path.name
    asked = sum(len(sample["requests"]) for task in whole.tasks for sample in whole.samples(task))
    assert len(stored) + len(computed) == asked, "each answer was computed once"
