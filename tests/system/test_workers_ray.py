"""Workers on a real Ray cluster: killed ones cost what they had not answered, a killed driver leaves none behind."""

import itertools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from darumeru.record.run import Journal, load_run
from darumeru.requests import Answer, Request
from darumeru.settings import WorkerSettings
from darumeru.workers import Pool
from darumeru.workers.cluster import CORES, connected
from darumeru.workers.worker import Worker
from support.commands import call
from support.runs import samples
from support.workers import opened

pytest.importorskip("ray")

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time

SPY = """
import os
if "DARUMERU_SPY" in os.environ:
    import darumeru.record.run as r
    old = r.Journal.append
    def append(self, batch, *rest):
        old(self, batch, *rest)
        with open(os.environ["DARUMERU_SPY"], "a") as log:
            log.write("".join(a.id + "\\n" for a in batch))
    r.Journal.append = append
"""


def of_ours(token: str) -> dict[int, str]:
    """Processes that have a token in their environment, as all descendants of a command do: id → command line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if token.encode() in (process / "environ").read_bytes():
                found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_killed_workers_and_a_killed_driver(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    asked, token = tmp_path / "asked.txt", uuid.uuid4().hex
    environment = {
        **os.environ, "PYTHONPATH": f"{tmp_path / 'spy'}{os.pathsep}{Path(__file__).parents[2]}", "DARUMERU_SPY": str(asked),
        "DARUMERU_TEST": token,
    }  # fmt: skip
    arguments = [
        "run", "--model", str(tiny_base), "--data", "mini", "--engine", "hf", "--device", "cpu", "--dtype", "float32", "--tasks",
        "parus,sum_extractive,cp_sent_ru", "--num-fewshot", "1", "--model-args", "batch_tokens=400",
    ]  # fmt: skip
    command = [sys.executable, "-c", "from darumeru.cli import main; main()", *arguments, "--workers", "2", "--output"]

    def start() -> "subprocess.Popen[bytes]":
        with (tmp_path / "said.txt").open("a") as said:
            return subprocess.Popen([*command, str(tmp_path / "two")], env=environment, stdout=said, stderr=said)

    def answered() -> int:
        return len(asked.read_text().split()) if asked.exists() else 0

    driver = start()
    wait_for(lambda: answered() > 5 or driver.poll() is not None)
    assert driver.poll() is None, (tmp_path / "said.txt").read_text()
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not of_ours(token), 120)
    journal = next((tmp_path / "two").glob("*/journal.jsonl"))
    stored = len(Journal(journal).answers)
    driver = start()
    try:
        wait_for(lambda: answered() > stored + 2 or driver.poll() is not None)
        workers = [pid for pid, name in of_ours(token).items() if name.startswith("ray::Worker")]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert driver.wait(600) == 0, (tmp_path / "said.txt").read_text()
    finally:
        driver.kill()
    lines = asked.read_text().split()
    assert len(lines) == len(set(lines)), "a stored answer was computed again"
    call(*arguments, "--output", tmp_path / "one")
    two, one = (load_run(next((tmp_path / name).iterdir())) for name in ("two", "one"))
    assert two.path.name == one.path.name
    for task, rows in samples(one).items():
        assert [(r.pred, [a.answer.text for a in r.requests]) for r in rows] == [
            (r.pred, [a.answer.text for a in r.requests]) for r in samples(two)[task]
        ]
    assert "died" in (tmp_path / "said.txt").read_text()


def test_a_node_that_joins_is_used_and_one_that_leaves_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster as Simulated

    class Slow:
        """Sleeps, and says which process answered; here, so that it reaches the workers as it stands."""

        follows = False

        def describe(self) -> dict[str, Any]:
            return {"engine": "slow", "dtype": "float32"}

        def close(self) -> None:
            pass

        def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
            for request in requests:
                time.sleep(0.01)
                yield [Answer(request.id, logprobs=(0.0,), text=str(os.getpid()))]

    class Holder(Worker):
        def load(self, model: Any) -> Any:
            return Slow()

    rounds = itertools.count()

    def answering(engine: Any) -> set[str]:
        """Ask all workers, and return which processes answered."""
        number = next(rounds)
        asked = [Request(f"t/{i}/{number}", "choose", (i,), "") for i in range(96)]
        found = [a for batch in engine.answers(asked) for a in batch]
        assert sorted(a.id for a in found) == sorted(r.id for r in asked)
        assert not [a for a in found if a.error]
        return {a.text for a in found}

    monkeypatch.setattr("darumeru.workers.pool._COUNT", 0.2)
    node = {"num_cpus": CORES, "object_store_memory": 10**8}
    simulated = Simulated(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        settings = WorkerSettings(workers="auto", ray=simulated.address)
        with connected(settings, gpus=False, worker=Holder) as cluster:
            pool = Pool(cluster, settings.stall)
            try:
                with pool.load(opened(), 10) as engine:
                    assert pool.size == len(answering(engine)) == 1
                    joined = simulated.add_node(**node)
                    wait_for(lambda: len(answering(engine)) == 2)
                    assert pool.size == 2
                    simulated.remove_node(joined)
                    wait_for(lambda: pool.size == 1)
                    assert len(answering(engine)) == 1
            finally:
                pool.close()
    finally:
        simulated.shutdown()


def test_a_cluster_that_does_not_answer_is_named(tiny_base: Path, tmp_path: Path) -> None:
    said = call("run", "--model", tiny_base, "--data", "mini", "--ray", "127.0.0.1:1", "--output", tmp_path, code=2)
    assert "No Ray cluster answers at '127.0.0.1:1'" in said
    said = call("run", "--model", tiny_base, "--data", "mini", "--ray", "ray://there:1", "--output", tmp_path, code=2)
    assert "give HOST:PORT" in said
