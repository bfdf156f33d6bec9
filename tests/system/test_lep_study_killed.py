"""A study, two processes here and on a Ray cluster, killed three times with SIGKILL, ends with the tables of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lep.study import read_grid, run_study
from support.study import make_inputs, write_grid

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time

AXES = {"vocab.extend.add": [0, 40], "tokens": [1280]}


def processes_of(cell_folder: Path) -> list[int]:
    """Processes that write a log of this study."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            links = [str(link.readlink()) for link in (process / "fd").iterdir()] if process.name.isdigit() else []
        except OSError:
            continue
        if any(link.startswith(str(cell_folder)) and link.endswith(".log") for link in links):
            found.append(int(process.name))
    return found


def wait_for(what: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid with base and texts beside it."""
    folder = make_inputs(tmp_path_factory.mktemp("study")).parent
    return write_grid(folder, axes=AXES, copies=0)


def cells(output: Path) -> list[list[str]]:
    rows = [line.split(",") for line in (output / "report" / "cells.csv").read_text().splitlines()]
    return [row[:-1] for row in rows]  # without seconds


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """The address of a cluster of two nodes."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 10**8}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


def test_a_study_killed_three_times_ends_with_the_same_tables(inputs: Path, tmp_path: Path, ray: str) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "lep", "study", str(inputs), "--output", str(output), "--workers", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    stages = output / "stages"
    marks = ("original-*/step.json", "pretrain-*/*/checkpoints/checkpoint-*", "measure-*/step.json")
    for mark, where in zip(marks, ([], ["--ray", ray], []), strict=True):
        process = subprocess.Popen([*command, *where], env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: any(stages.glob(mark)), process)  # noqa: B023 - it is called at once
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        # Nobody is left behind.
        deadline = time.monotonic() + 240
        while processes_of(output / "cells"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    alone = tmp_path / "alone"
    run_study(read_grid(inputs), alone)
    assert cells(output) == cells(alone)
    found = {s["stage"]: s for s in json.loads((output / "report" / "study.json").read_text())["stages"]}
    assert all(s["times"] == s["distinct"] for s in found.values())
    assert (found["vocab"]["distinct"], found["init"]["distinct"], found["pretrain"]["distinct"]) == (1, 1, 2)
