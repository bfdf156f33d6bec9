"""All 23 tasks from a hub, by processes of their own: cold, warm and no cache, a lock, a bundle, kills, a full disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from darumeru.task.check import check_folder
from darumeru.task.suite import Catalogue
from support.hub import Hub, Trouble
from support.hub_client import SUITES, ask, settings, start


def value(answer: dict[str, Any]) -> Any:
    assert "value" in answer, answer
    return answer["value"]


def test_both_suites_cold_warm_offline_locked_and_pulled(hub: Hub, tiny_chat: Path, tmp_path: Path) -> None:
    """The first process has an empty cache, the second a full one, the third no network; a bundle gives the same prompts."""

    def plans(**more: Any) -> list[tuple[Any, ...]]:
        return [("plan", settings(tiny_chat, suite, **more)) for suite in SUITES]

    runs = [("run", str(tmp_path / "runs"), settings(tiny_chat, suite)) for suite in SUITES]
    environment = hub.environment(tmp_path / "home")
    cold = [value(a) for a in ask(environment, *runs)]
    for suite, done in zip(SUITES, cold, strict=True):
        assert done["complete"]
        scores = {name: result["score"]["value"] for name, result in done["scores"]["tasks"].items()}
        assert len(scores) == SUITES[suite]
        assert scores == dict.fromkeys(done["asked"], 1.0)
    ids = [done["id"] for done in cold]

    assert [value(a)["id"] for a in ask(environment, *plans())] == ids
    asked = len(hub.asked)
    offline = [value(a) for a in ask({**environment, "HF_HUB_OFFLINE": "1"}, *plans(), *runs)]
    assert [found["id"] for found in offline] == ids * 2
    assert [done["asked"] for done in offline[2:]] == [[], []]  # found finished, nothing computed again
    assert len(hub.asked) == asked

    conversion = cold[0]["data"]["rucola"]["validation"]
    rucola = hub.repository("RussianNLP/rucola").branches
    assert conversion["revision"] == rucola["main"]
    assert conversion["conversion_revision"] == rucola["refs/convert/parquet"]

    # The hub moves on; a finished run pins what it read, in a process whose cache is empty.
    for repository, branch in (("RefalMachine/darumeru", "main"), ("RussianNLP/rucola", "refs/convert/parquet")):
        hub.repository(repository).change({"LICENSE": "new"}, branch)
    lock = str(tmp_path / "runs" / cold[0]["name"])
    bundle = str(tmp_path / "bundle")
    locked, moved, *pulled = ask(
        hub.environment(tmp_path / "other"),
        ("plan", settings(tiny_chat, "darumeru", lock=lock)),
        ("plan", settings(tiny_chat, "darumeru")),
        *(("pull", suite, bundle, lock) for suite in SUITES),
        *plans(data=bundle),
    )
    assert value(locked)["id"] == ids[0]
    assert value(moved)["id"] != ids[0]
    assert value(moved)["prompts"] == cold[0]["prompts"]
    assert [value(p) for p in pulled[:2]] == [f"{bundle}/bundle.json"] * 2
    report = check_folder(bundle, Catalogue())
    assert report.faults == []
    assert [len(report.ready(suite)) for suite in SUITES] == list(SUITES.values())
    for fresh, from_hub in zip(map(value, pulled[2:]), cold, strict=True):
        assert fresh["prompts"] == from_hub["prompts"]
        for task, data in from_hub["data"].items():
            assert {s: d["sha256"] for s, d in fresh["data"][task].items()} == {s: d["sha256"] for s, d in data.items()}
    pinned = json.loads(Path(bundle, "bundle.json").read_text(encoding="utf-8"))["revisions"]
    assert pinned["RefalMachine/darumeru"] == cold[0]["data"]["parus"]["test"]["revision"]


def test_a_run_killed_between_two_data_sets_and_one_killed_while_answering(
    hub: Hub, tiny_chat: Path, tmp_path: Path
) -> None:
    environment = hub.environment(tmp_path / "home")
    call = ("run", str(tmp_path / "runs"), settings(tiny_chat, "darumeru"))
    hub.faults = [Trouble(r"GET .*/rucola/resolve/.*/validation/", seconds=60, times=1)]
    process = start(environment, call)
    while not any("/validation/" in request for request in list(hub.asked)):
        assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    hub.faults = []
    seen = len(hub.asked)
    preamble = (  # dies in the middle of answering
        "import os, darumeru.record.run as r\n"
        "old = r.Journal.append\n"
        "def append(self, *rest):\n"
        "    old(self, *rest)\n"
        "    if len(self.answers) >= 100: os._exit(9)\n"
        "r.Journal.append = append\n"
    )
    process = start(environment, call, preamble=preamble)
    assert process.wait(timeout=240) == 9
    fetched = [request for request in hub.asked[seen:] if request.startswith("GET /datasets/")]
    assert not any("/rummlu/" in request for request in fetched), "what was in the cache was fetched again"
    begun = [path.name for path in (tmp_path / "runs").iterdir()]
    done = value(ask(environment, call)[0])
    assert done["complete"]
    assert [done["name"]] == begun
    assert "rummlu" not in done["asked"]  # answered before the process died
    assert done["scores"]["suite"]["value"] == 1.0


FILL = ("rows", "RefalMachine/darumeru", "parus", "test")


def test_two_processes_fill_one_cache(hub: Hub, tmp_path: Path) -> None:
    hub.faults = [Trouble("GET .*/resolve/", seconds=0.5)]  # so that they meet
    environment = hub.environment(tmp_path / "home")
    processes = [start(environment, FILL, ("rows", "RussianNLP/rucola", None, "train")) for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=240)[0]) for process in processes]
    assert answers[0] == answers[1]
    assert [len(value(answer)["rows"]) for answer in answers[0]] == [28, 45]
    assert ask({**environment, "HF_HUB_OFFLINE": "1"}, FILL)[0] == answers[0][0]


@pytest.mark.parametrize("size", [0, 8000])
def test_a_full_disk_is_named_and_the_next_start_goes_on(hub: Hub, tmp_path: Path, size: int) -> None:
    """No file of the cache may grow beyond `size` bytes: neither those that the hub sends, nor those made of them."""
    environment = hub.environment(tmp_path / "home")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, -1))"
    refused = ask(environment, FILL, preamble=limit)[0]
    assert f"no space is left for the hub's cache in '{tmp_path / 'home'}'" in refused["error"], refused
    assert refused["code"] == 1
    assert len(value(ask(environment, FILL)[0])["rows"]) == 28
