"""Trackers are told scores with intervals, a table and samples; what fails there fails nothing here, and no key is written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from darumeru import trackers
from darumeru.errors import UserError
from darumeru.record.run import load_run
from darumeru.trackers import find_trackers, track, tracker_names
from darumeru.trackers.base import Tracker, report_of
from support.synthetic import edited, make_run

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "leaderboards" / "runs" / "smollm2-135m-instruct-mini"
SCORES = json.loads((RECORD / "scores.json").read_text())
KEY = "sk-very-secret-123456"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    folder = shutil.copytree(RECORD, tmp_path / "runs" / RECORD.name)
    return edited(
        folder, "header.json", lambda h: h["engine"].update(model_args={"api_key": KEY}, base_url=f"http://u:{KEY}@h")
    )


# -- what all of them are told ------------------------------------------------------------------------------------------


def test_what_trackers_are_told(record: Path) -> None:
    report = report_of(load_run(record))
    values = report.values()
    assert values["suite"] == SCORES["suite"]["value"]
    assert [values[f"tasks/parus{part}"] for part in ("", "/low", "/high")] == [
        SCORES["tasks"]["parus"]["score"][part] for part in ("value", "low", "high")
    ]
    assert values["groups/darummlu"] == SCORES["groups"]["darummlu"]["value"]
    assert {task: len(rows) for task, rows in report.samples.items()} == dict.fromkeys(SCORES["tasks"], 20)
    samples = {s["id"]: s for s in map(json.loads, (record / "samples" / "parus.jsonl").read_text().splitlines())}
    for task, number, prompt, answer, gold, score in report.samples["parus"]:
        sample = samples[number]
        assert (task, prompt, answer) == ("parus", sample["requests"][0]["prompt"], sample["pred"])
        assert (gold, score) == (sample["gold"], sample["score"]["acc"])
    assert "| parus |" in report.table
    assert KEY not in repr(report)
    assert report.record == str(record)


def test_names_that_a_tracker_would_refuse(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", "m", tasks=["parus"])
    edited(run, "scores.json", lambda s: s["groups"].update({"Группа: 1": next(iter(s["groups"].values()))}))
    names = [line.name for line in report_of(load_run(run)).lines]
    assert names == ["suite", "groups/darumera", "groups/1", "tasks/parus"]


def test_a_tracker_that_fails_is_one_warning(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(report: Any) -> str:
        raise OSError(f"https://me:{KEY}@host/ says no to {KEY}\nand more of it")

    monkeypatch.setenv("SOME_API_KEY", KEY)
    said: list[str] = []
    sent: list[str] = []
    working = Tracker((), lambda report: sent.append(report.id) or f"http://me:{KEY}@host/run")
    places = track(load_run(record), {"broken": Tracker((), refuse), "working": working}, said.append)
    assert said == [
        "Not tracked by broken (OSError: https://host/ says no to ***). The record is whole; the same command tries again."
    ]
    assert (places, sent) == ({"working": "http://host/run"}, [load_run(record).header.id])


def test_what_is_not_there_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"mlflow", "tensorboard", "trackio", "wandb"} <= set(tracker_names())
    with pytest.raises(UserError, match=r"Unknown tracker 'wandbb'\. Did you mean 'wandb'"):
        find_trackers(["wandbb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="--track wandb needs wandb: pip install wandb"):
        find_trackers(["wandb"])


# -- the calls, against stand-ins that know the signatures of today -----------------------------------------------------


class Calls:
    """Remembers calls by name; attributes that are given are as they are."""

    def __init__(self, **given: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: self.calls.append((name, args, more)) or self

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("exit", (), {}))

    def of(self, name: str) -> list[Any]:
        """What was given to the calls of a name: its first argument, or its keywords."""
        return [args[0] if args else more for called, args, more in self.calls if called == name]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, module: Calls) -> Calls:
    monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return module


def sent(name: str, record: Path) -> str:
    """Send a report as a run does, and let nothing be swallowed."""
    return trackers.plugins.find("darumeru.trackers", trackers.GROUP, name, Tracker, what="tracker").send(
        report_of(load_run(record))
    )


def test_wandb_gets_scores_tables_and_samples(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    client = stand_in(
        monkeypatch, "wandb", Calls(Table=lambda **t: t, Settings=lambda **s: s, url=None, dir="/w/offline")
    )
    assert sent("wandb", record) == "/w/offline"
    (init,) = client.of("init")
    assert (init["project"], init["config"]["suite"]) == ("darumeru", "darumeru")
    (logged,) = client.of("log")
    assert logged["suite/low"] == SCORES["suite"]["low"]
    assert [
        "tasks/parus",
        "parus",
        *(SCORES["tasks"]["parus"]["score"][k] for k in ("value", "low", "high")),
        28,
    ] in logged["scores"]["data"]
    assert len(logged["samples/parus"]["data"]) == 20
    assert client.calls[-1][0] == "finish"
    assert KEY not in repr(client.calls)


def test_wandb_never_asks_for_a_key(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    client = stand_in(monkeypatch, "wandb", Calls(login=lambda prompt, verify: prompt))
    said: list[str] = []
    assert track(load_run(record), {"wandb": Tracker(("wandb",), lambda r: sent("wandb", record))}, said.append) == {}
    assert "nobody is logged in: 'wandb login', or WANDB_MODE=offline" in said[0]
    assert client.calls == []


def test_mlflow_gets_scores_and_samples(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = stand_in(monkeypatch, "mlflow", Calls(name="darumeru", info=SimpleNamespace(run_id="r1")))
    assert sent("mlflow", record).endswith("experiment darumeru, run r1")
    assert client.of("log_metrics")[0]["tasks/parus/high"] == SCORES["tasks"]["parus"]["score"]["high"]
    assert client.of("log_params")[0]["num_fewshot"] == 0
    (table,) = client.of("log_table")
    assert set(table) == {"task", "id", "prompt", "answer", "gold", "score"}
    assert len(set(map(len, table.values()))) == 1
    assert ("exit", (), {}) in client.calls
    assert KEY not in repr(client.calls)


def test_trackio_gets_scores_and_samples(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = stand_in(monkeypatch, "trackio", Calls(Table=lambda dataframe: dataframe))
    assert sent("trackio", record) == "trackio show --project darumeru"
    (logged,) = client.of("log")
    assert logged["suite"] == SCORES["suite"]["value"]
    assert list(logged["samples/parus"].columns) == ["task", "id", "prompt", "answer", "gold", "score"]
    assert client.calls[-1][0] == "finish"


# -- the real ones, each offline and in a process of its own ------------------------------------------------------------

SEND = """
import sys
from darumeru.record.run import load_run
from darumeru.trackers import find_trackers, track
problems = []
print(track(load_run(sys.argv[2]), find_trackers([sys.argv[1]]), problems.append))
print(*problems, file=sys.stderr)
"""


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "trackio", "wandb"])
def test_the_real_tracker_keeps_it_without_a_network(name: str, record: Path, tmp_path: Path) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "MLFLOW", "TRACKIO"))},
        "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path),
        "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "SOME_API_KEY": KEY,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SEND, name, str(record)], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"'{name}'" in done.stdout, done.stderr
    kept = [p for p in tmp_path.rglob("*") if p.is_file() and record not in p.parents]
    assert kept
    assert not any(KEY.encode() in p.read_bytes() for p in kept)


def test_tensorboard_reads_it_back(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    place = sent("tensorboard", record)
    folder = record.parent / "tensorboard"
    assert place == f"tensorboard --logdir {folder}"
    events = EventAccumulator(str(folder / record.name), size_guidance={"tensors": 0})
    events.Reload()
    for part, key in (("", "value"), ("/low", "low"), ("/high", "high")):
        (event,) = events.Scalars(f"darumeru/suite{part}")
        assert event.value == pytest.approx(SCORES["suite"][key], abs=1e-6)
    (text,) = events.Tensors("samples/parus/text_summary")
    shown = text.tensor_proto.string_val[0].decode()
    assert shown.count("\n") == 21  # a heading, its rule, and 20 documents
    assert load_run(record).verify() is None
