"""Processes of a study on one machine: each has a GPU of its own, and says how it ended."""

import json
from pathlib import Path

import pytest

from darumeru.errors import UserError
from lep.study import workers

CHILD = """
import json, os, sys
request = json.loads(sys.stdin.readline())
print(os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["OMP_NUM_THREADS"], flush=True)
raise SystemExit(request["code"])
"""


@pytest.fixture(autouse=True)
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cell's process that prints what it was given."""
    package = tmp_path / "lep" / "study"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "cores", lambda: 8)


def printed(pool: workers.Workers, log: Path, code: int = 0) -> tuple[str, list[str]]:
    ended = pool.run({"code": code}, log)
    return ended, log.read_text().split()


def test_each_takes_a_gpu_that_may_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-ab")
    with workers.open_workers("auto", None, gpus=True) as pool:
        assert (pool.count, pool.cores) == (2, 8)
        # One after the other, they take turns.
        assert printed(pool, tmp_path / "a") == ("", ["3", "4"])
        assert printed(pool, tmp_path / "b") == ("", ["GPU-ab", "4"])
        assert printed(pool, tmp_path / "c") == ("", ["3", "4"])


def test_without_gpus_they_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with workers.open_workers("auto", None, gpus=False) as pool:
        assert pool.count == 1
    with workers.open_workers(3, None, gpus=False) as pool:
        assert printed(pool, tmp_path / "a") == ("", ["None", "2"])


def test_how_a_process_ended_is_said(tmp_path: Path) -> None:
    with workers.open_workers(2, None, gpus=False) as pool:
        assert printed(pool, tmp_path / "cell.log", code=3)[0] == "its process ended with code 3; see cell.log"


def test_a_node_that_sees_no_folder_says_so(tmp_path: Path) -> None:
    request = {"output": str(tmp_path / "out"), "grid": str(tmp_path / "grid.yaml")}
    said = workers._on_node(request, str(tmp_path / "log"), 1, {})
    assert f"has no {tmp_path / 'out' / 'study.json'}: give folders that all nodes see" in said
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.json").write_text(json.dumps({}))
    (tmp_path / "grid.yaml").touch()
    said = workers._on_node(request, str(tmp_path / "log"), 1, {"python": "3.0"})
    assert said.endswith("has another version of python: install the same versions on all nodes")


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers_are_refused(count: int) -> None:
    with (
        pytest.raises(UserError, match=f"--workers {count}: at least one cell"),
        workers.open_workers(count, None, True),
    ):
        pass
