"""The api engine against a real `vllm serve` of SmolLM2-135M-Instruct on the loopback address, started and stopped here."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest

from darumeru.engines.api.client import Refused
from darumeru.errors import DarumeruError
from darumeru.evaluation import evaluate
from darumeru.record.run import Journal, Run
from darumeru.requests import Answer
from support.real import ASKED, needs_vllm
from support.thinking import BUDGET, make_tasks

pytestmark = [needs_vllm, pytest.mark.xdist_group("api")]

NAME = "smol"
STATED = [key.name for key in fields(Answer)]
"""What a record may state of an answer."""
TASKS = ("rucola", "ruopenbookqa", "parus", "sum_extractive", "cp_sent_en")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent() -> None:
    """Linux: the kernel kills the server should this process be killed before it can."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


class Served:
    """A real server in a process group of its own."""

    def __init__(self, model: Path, port: int, log: Path, *more: str, longest: int = 4096) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log = log
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", NAME,
            "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(longest),
            "--enforce-eager", "--max-num-seqs", "16", "--seed", "0", "--block-size", "32", *more,
        ]  # fmt: skip
        quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
        # One core, and not always the first: other tests may run beside this one.
        small = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                env={**os.environ, **quiet, **small},
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait(self, seconds: float = 420) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
            with suppress(urllib.error.URLError, OSError):
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                with opener.open(self.url.removesuffix("/v1") + "/health", timeout=5):
                    return
            time.sleep(1)
        raise AssertionError("the server did not start:\n" + self.log.read_text(errors="replace")[-3000:])

    def kill(self) -> None:
        """End the server and its engine process, at once and for certain."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)


@contextmanager
def serving(model: Path, port: int, log: Path, *more: str, longest: int = 4096) -> Iterator[Served]:
    served = Served(model, port, log, *more, longest=longest)
    try:
        served.wait()
        yield served
    finally:
        served.kill()


def run(served: Served, model: Path, output: Path, limit: int = 4, **settings: object) -> Run:
    return evaluate(
        model, data="mini", tasks=TASKS, engine="api", base_url=served.url, served_model=NAME, output=output, limit=limit,
        max_prompt_len=ASKED["max_prompt_len"], **settings,
    )  # fmt: skip


@pytest.mark.timeout(1500)
def test_a_real_server_says_what_the_model_says_and_may_die(
    smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """One test, because a server takes long to start: killed half way and resumed at the next, numbers as from the hf engine."""
    tokenizer_only = tmp_path / "smollm2"
    tokenizer_only.mkdir()
    for file in smollm2.iterdir():
        if file.suffix in (".json", ".jinja"):
            (tokenizer_only / file.name).write_bytes(file.read_bytes())
    port, log = free_port(), tmp_path / "server.log"

    with serving(smollm2, port, log) as served:
        killer = threading.Thread(target=kill_after_some_answers, args=(served, tmp_path / "cut"))
        killer.start()
        with pytest.raises(DarumeruError, match=r"The server at .* (broke the connection off|cannot be reached)"):
            run(served, tokenizer_only, tmp_path / "cut", model_args={"retries": 1, "concurrency": 8})
        killer.join()
    path = next((tmp_path / "cut").iterdir())
    before = Journal(path / "journal.jsonl").answers
    assert before, "what was answered before the kill is kept"

    with serving(smollm2, port, log) as served:
        resumed = run(served, tokenizer_only, tmp_path / "cut", model_args={"retries": 1, "concurrency": 8})
    assert resumed.path == path
    assert resumed.complete
    total = sum(len(s["requests"]) for t in TASKS for s in resumed.samples(t))
    assert len(before) < total
    abilities = resumed.scores["engine"]["abilities"]
    assert abilities["labels"] == "logprob_token_ids"
    assert abilities["generated"] == "token_ids"
    assert resumed.header["model"]["weights_sha256"] is None

    local = request.getfixturevalue("hf_run")  # now, not before: another process is computing it meanwhile
    largest, texts = compare(local, resumed)
    with capsys.disabled():
        print(f"\nlargest difference of log-probabilities {largest:.2e}; same texts {texts[0]} of {texts[1]}")
    assert largest < 1e-3
    assert texts[0] >= texts[1] - 1


def kill_after_some_answers(served: Served, output: Path) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        journal = next(output.glob("*/journal.jsonl"), None)
        if journal is not None and journal.stat().st_size > 1000:
            break
        time.sleep(0.02)
    served.kill()


def compare(a: Run, b: Run) -> tuple[float, tuple[int, int]]:
    """The largest difference of log-probabilities, and how many texts (with their tokens) of how many are the same.

    Over the documents of `b`, which are some of those of `a`.
    """
    largest, same, texts = 0.0, 0, 0
    for task in TASKS:
        of_a = {sample["id"]: sample for sample in a.samples(task)}
        for other in b.samples(task):
            one = of_a[other["id"]]
            for left, right in zip(one["requests"], other["requests"], strict=True):
                assert left["prompt"] == right["prompt"]
                x, y = left["answer"], right["answer"]
                assert [key in x for key in STATED] == [key in y for key in STATED], f"{x} {y}"
                if "logprobs" in x:
                    largest = max(largest, *(abs(p - q) for p, q in zip(x["logprobs"], y["logprobs"], strict=True)))
                    assert max(range(len(x["logprobs"])), key=x["logprobs"].__getitem__) == max(
                        range(len(y["logprobs"])), key=y["logprobs"].__getitem__
                    ), "another label"
                else:
                    texts += 1
                    same += (x.get("text"), x.get("tokens")) == (y.get("text"), y.get("tokens"))
    return largest, (same, texts)


# -- thinking ---------------------------------------------------------------------------------------------------------

WHOLE = ("text", "tokens", "finish", "thought", "thought_tokens", "unfinished")


def stated(run: Run, task: str, *keys: str) -> list[list[object]]:
    return [
        [request["answer"].get(key) for key in keys] for sample in run.samples(task) for request in sample["requests"]
    ]


@pytest.mark.timeout(900)
def test_a_model_that_thinks_behind_a_real_server_with_a_reasoning_parser(
    thinking_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off, on and cut as from the hf engine: over raw prompts, and where the server renders prompts and parses thoughts."""
    zoo = make_tasks(tmp_path / "zoo")
    ways = {"off": {}, "cut": {"thinking": "on", "thinking_budget": BUDGET}}
    local = {
        way: evaluate(thinking_model, engine="hf", output=tmp_path / "hf", **ways[way], **zoo) for way in ways
    }  # fmt: skip
    served_as = {"engine": "api", "served_model": NAME, "dtype": "auto", "device": "auto"}
    log = tmp_path / "server.log"
    with serving(thinking_model, free_port(), log, "--reasoning-parser", "deepseek_r1", longest=512) as served:
        settings = {**zoo, **served_as, "base_url": served.url}
        for way, asked in ways.items():
            run = evaluate(thinking_model, output=tmp_path / "raw", **asked, **settings)
            assert run.scores["engine"]["abilities"]["prompts"] == "tokens"
            assert stated(run, "legs_said", *WHOLE, "approximate") == stated(
                local[way], "legs_said", *WHOLE, "approximate"
            )
            assert stated(run, "legs", "thought_tokens") == stated(local[way], "legs", "thought_tokens")
            for [ours], [theirs] in zip(
                stated(run, "legs", "logprobs"), stated(local[way], "legs", "logprobs"), strict=True
            ):
                assert ours == (theirs and pytest.approx(theirs, abs=1e-4))
        assert [unfinished for [unfinished] in stated(run, "legs", "unfinished")].count(True) == 2  # too long, endless

        async def none(self: object) -> Refused:
            return Refused(404, "no completions here")

        # The same server as one that only chats: it renders the prompts and tells thoughts apart.
        monkeypatch.setattr("darumeru.engines.api.abilities._Trial._try_text", none)
        for way, asked in ways.items():
            run = evaluate(thinking_model, output=tmp_path / "chat", tasks=("legs_said",), **asked, **settings)
            assert run.scores["engine"]["abilities"]["template_args"]
            assert stated(run, "legs_said", *WHOLE, "approximate") == stated(
                local[way], "legs_said", *WHOLE, "approximate"
            )
