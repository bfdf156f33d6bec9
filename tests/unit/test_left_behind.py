"""What other programs would notice: processes that outlive a command, texts of servers that are no UTF-8."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from darumeru.engines.api.reading import content, reasoning

ROOT = Path(__file__).parents[2]

READING = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from darumeru.leaderboard import reading

def told(argument):
    print(os.getpid(), flush=True)
    time.sleep(60)

reading._read_one = told
reading._read_new([reading._Job(None, "", False, ())] * 9, None, None, 2)
"""


def test_processes_that_read_runs_end_when_the_leaderboard_is_killed(tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(READING)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, tmp_path / "killed.py"], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 240
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("text", ["\ud83d", "ы\udc00ё", "plain"])
def test_halves_of_characters_in_a_servers_answer_can_be_written(text: str) -> None:
    choices = ({"text": text}, {"message": {"content": text}})
    for found in (*map(content, choices), reasoning({"message": {"reasoning": text}})):
        assert found.encode().decode() == text.encode("utf-8", "replace").decode()
