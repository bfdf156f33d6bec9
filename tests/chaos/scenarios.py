"""What is disturbed: real commands on models of random weights, each a few seconds long."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from .content import content_of

Content = dict[str, Any]
"""File below an output folder → what is in it, without times."""


class Scenario(ABC):
    """A command and what it leaves.

    Args:
        inputs: a folder for what it reads, which no fault touches.
    """

    name: str
    seconds = 120.0
    """Without work after which a start counts as hanging."""
    lingers = 15.0
    """Seconds after which a process that a killed command had started still runs, if it is left behind."""
    ends = frozenset({0})
    """Exit codes of a start that did all there was to do."""
    fresh = False
    """Whether each start is a Python of its own: not all libraries bear that a process which has loaded them is forked."""
    asked = False
    """Whether it is disturbed only where it is asked for by name."""
    unread: Sequence[str] = ()
    """Patterns of files below the output folder that nothing reads again, so what changes in them is not looked for."""

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs
        inputs.mkdir(parents=True)

    @abstractmethod
    def make(self) -> None:
        """Write what the command reads."""

    @abstractmethod
    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command that writes an output folder; `beside` is what `arrange` wrote."""

    def arrange(self, beside: Path) -> None:  # noqa: B027 — most need nothing
        """Write what one trial needs for itself, which no fault touches, into a folder."""

    def meanwhile(self, output: Path, beside: Path) -> AbstractContextManager[object]:
        """Return what happens beside the command while a trial goes on."""
        return nullcontext()

    def environment(self, beside: Path) -> dict[str, str]:
        """Return variables that the command needs."""
        return {}

    def content(self, output: Path) -> Content:
        """Return what the command left, without times."""
        return content_of(output)

    def done(self, code: int, text: str) -> bool:
        """Return whether a start ended as one that did all there was to do, or found it done."""
        return code in self.ends

    def reached(self, output: Path) -> dict[str, int]:
        """Return training folder → the step of its newest whole checkpoint."""
        found: dict[str, int] = {}
        for state in output.rglob("checkpoint-*/trainer_state.json"):
            place, step = str(state.parents[1]), int(state.parent.name.removeprefix("checkpoint-"))
            found[place] = max(found.get(place, 0), step)
        return found


def words(*values: object) -> list[str]:
    return [str(value) for value in values]


@contextmanager
def forked(work: Callable[[], None]) -> Iterator[None]:
    """Have another process do some work, and end it."""
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


class Run(Scenario):
    """`darumeru run` on hf."""

    name = "run"

    def make(self) -> None:
        """Write a base model."""
        from support.tiny import make_model

        make_model(self.inputs / "base", chat=False)

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "darumeru", "run", "--model", self.inputs / "base", "--data", "mini", "--engine", "hf", "--device", "cpu",
            "--dtype", "float32", "--tasks", "parus,cp_sent_ru", "--limit", 8, "--num-fewshot", 0,
            "--model-args", "batch_tokens=300", "--output", output,
        )  # fmt: skip


class Leaderboard(Scenario):
    """`darumeru leaderboard` of two runs."""

    name = "leaderboard"

    def make(self) -> None:
        """Write runs of two models."""
        from darumeru.evaluation import evaluate
        from support.tiny import make_model

        for name, seed in (("one", 0), ("two", 1)):
            make_model(self.inputs / name, chat=False, seed=seed)
            evaluate(
                self.inputs / name, output=self.inputs / "runs", data="mini", engine="hf", device="cpu",
                tasks=["parus"], limit=4, num_fewshot=0,
            )  # fmt: skip

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words("darumeru", "leaderboard", self.inputs / "runs", "--output", output)


class Pretrain(Scenario):
    """`lep pretrain` of a few steps, with checkpoints."""

    name = "pretrain"

    def make(self) -> None:
        """Write a base model and texts."""
        import torch
        import transformers

        from support.lep_models import ARCHITECTURES, ENGLISH, RUSSIAN, save_byte_level
        from support.pretraining import ROWS, documents

        config, model, values = ARCHITECTURES["llama"]
        torch.manual_seed(0)
        made = getattr(transformers, model)(
            getattr(transformers, config)(**values, vocab_size=ROWS, initializer_range=0.3)
        )
        made.save_pretrained(self.inputs / "base")
        save_byte_level(self.inputs / "base", ENGLISH + RUSSIAN, 400)
        for name, seed, number in (("corpus", 0, 60), ("held", 1, 4)):
            lines = [json.dumps({"text": text}, ensure_ascii=False) for text in documents(number, seed)]
            (self.inputs / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "lep", "pretrain", "--model", self.inputs / "base", "--corpus", self.inputs / "corpus.jsonl",
            "--held-out", f"ru={self.inputs / 'held.jsonl'}", "--output", output, "--new-from", 390, "--block-size", 48,
            "--total-batch-size", 4, "--per-device-train-batch-size", 2, "--max-steps", 24, "--save-steps", 4,
            "--logging-steps", 1, "--warmup-steps", 1, "--device", "cpu", "--learning-rate", "1e-2",
            "--train", "head:0.5,new-rows+lora",
        )  # fmt: skip


class Watch(Scenario):
    """`darumeru watch` of a training whose next checkpoint comes while it evaluates the one before."""

    name = "watch"
    steps = (10, 20)

    def make(self) -> None:
        """Write checkpoints as a Trainer leaves them."""
        from support.checkpoints import checkpoint
        from support.tiny import make_model

        make_model(self.inputs / "base", chat=False)
        for step in self.steps:
            checkpoint(self.inputs / "base", self.inputs / "training", step, max_steps=self.steps[-1])

    def arrange(self, beside: Path) -> None:
        """Write the first checkpoint."""
        self._grow(beside, self.steps[0])

    def _grow(self, training: Path, step: int) -> None:
        name = f"checkpoint-{step}"
        shutil.copytree(self.inputs / "training" / name, training / f"{name}.new")
        (training / f"{name}.new").rename(training / name)

    @contextmanager
    def meanwhile(self, output: Path, beside: Path) -> Iterator[None]:
        """Write the other checkpoint when the first is being evaluated, or cannot be: a watch ends with the last one."""

        def grow() -> None:
            deadline = time.monotonic() + 30
            while not any(output.parent.glob("*/*/header.json")) and time.monotonic() < deadline:
                time.sleep(0.05)
            self._grow(beside, self.steps[1])

        with forked(grow):
            yield

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "darumeru", "watch", beside, "--name", "training", "--data", "mini", "--engine", "hf", "--device", "cpu",
            "--tasks", "cp_sent_ru", "--num-fewshot", 0, "--limit", 8, "--keep-best", "micro_avg", "--output", output,
            "--poll", 0.2, "--model-args", "batch_tokens=300",
        )  # fmt: skip


class LepRun(Scenario):
    """`lep run` of a recipe without an instruct model: vocabulary, rows, training, evaluation, report."""

    name = "lep-run"

    def make(self) -> None:
        """Write a base model, texts and the recipe."""
        import yaml

        from support.pipeline import RECIPE, make_inputs

        make_inputs(self.inputs)
        recipe = {key: value for key, value in RECIPE.items() if key not in ("instruct", "propagate", "calibrate")}
        recipe |= {
            "evaluate": {**RECIPE["evaluate"], "tasks": ["parus_tenth"], "models": ["base", "base-new"]},
            "report": {"examples": ["Скажи дом"], "max_tokens": 4, "characters": 300, "speed_tokens": 4},
        }
        (self.inputs / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words("lep", "run", self.inputs / "recipe.yaml", "--output", output)

    def content(self, output: Path) -> Content:
        """Return what the command left; of pages only that they are there, since they tell speeds."""
        return {k: "a page" if Path(k).suffix in _PAGES else v for k, v in super().content(output).items()}


class Study(Scenario):
    """`lep study` of a control and one design, which share the measures of their base."""

    name = "study"
    unread = ("stages/pretrain-*/step.json", "cells/*.json")  # how long it took

    def make(self) -> None:
        """Write a base model, texts and the grid."""
        from support.study import make_inputs, write_grid

        make_inputs(self.inputs)
        write_grid(self.inputs, axes={"vocab.extend.add": [0, 40], "tokens": [512]}, copies=0)

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words("lep", "study", self.inputs / "grid.yaml", "--output", output)

    def content(self, output: Path) -> Content:
        """Return what the command left; of the report only that it is there, since it tells times."""
        return {k: "of the report" if k.startswith("report/") else v for k, v in super().content(output).items()}


class Calibrate(Scenario):
    """`lep calibrate train` of a few steps, with checkpoints."""

    name = "calibrate"

    def make(self) -> None:
        """Write a chat model and conversations."""
        from support.chats import chat
        from support.tiny import make_model

        make_model(self.inputs / "chat", chat=True)
        said = [
            chat(f"скажи {word}", f"вот {word} и {number}") for number in range(8) for word in ("дом", "лес", "сад")
        ]
        lines = [json.dumps({"messages": messages}, ensure_ascii=False) for messages in said]
        (self.inputs / "chats.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "lep", "calibrate", "train", "--model", self.inputs / "chat", "--data", self.inputs / "chats.jsonl", "--output",
            output, "--device", "cpu", "--dtype", "float32", "--batch", 4, "--max-length", 64, "--epochs", 2, "--save-every", 3,
        )  # fmt: skip

    def done(self, code: int, text: str) -> bool:
        """Return whether it is done; a folder that is there is not written again, which is said with exit code 2."""
        return super().done(code, text) or (code == 2 and "is not empty" in text)


class Served(Scenario):
    """A command that asks a server, which is another process on a port of its own."""

    fresh = True

    def make(self) -> None:
        """Take a port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            (self.inputs / "port").write_text(str(free.getsockname()[1]))

    @property
    def port(self) -> int:
        """The port."""
        return int((self.inputs / "port").read_text())

    @abstractmethod
    def serving(self) -> AbstractContextManager[object]:
        """Return what serves on the port."""

    @contextmanager
    def meanwhile(self, output: Path, beside: Path) -> Iterator[None]:
        """Serve."""

        def serve() -> None:
            with self.serving():
                while True:
                    time.sleep(1)

        with forked(serve):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                    break
                time.sleep(0.05)
            yield


class Api(Served):
    """`darumeru run` on a server that is slow: each fifth call fails with 503, each seventh is cut off."""

    name = "api"

    def make(self) -> None:
        """Write a chat model, whose tokenizer the server has."""
        from support.tiny import make_model

        super().make()
        make_model(self.inputs / "chat", chat=True)

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "darumeru", "run", "--model", self.inputs / "chat", "--data", "mini", "--engine", "api", "--base-url",
            f"http://127.0.0.1:{self.port}/v1", "--served-model", "tiny", "--tasks", "parus,cp_sent_ru",
            "--limit", 6, "--num-fewshot", 0, "--model-args", "concurrency=2,backoff=0.01", "--output", output,
        )  # fmt: skip

    def serving(self) -> AbstractContextManager[object]:
        """Return the server."""
        from transformers import AutoTokenizer

        from support.standin import StandIn, standing_in

        tokenizer = AutoTokenizer.from_pretrained(self.inputs / "chat")
        return standing_in(StandIn(tokenizer, delay=0.02, armed=True, fails_each=5, cuts_each=7), self.port)


class Pull(Served):
    """`darumeru data pull` of all data sets of the suite."""

    name = "pull"

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words("darumeru", "data", "pull", "--output", output)

    def environment(self, beside: Path) -> dict[str, str]:
        """Return where the hub is, and a cache that is the trial's own."""
        from support.hub import Hub

        mine = Hub(f"http://127.0.0.1:{self.port}").environment(beside.parent / "home", HF_HUB_OFFLINE="0")
        return {name: value for name, value in mine.items() if name.startswith("HF_")}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve."""
        from support.hub import serve
        from support.hub_data import fill

        with serve(self.port) as hub:
            fill(hub)
            yield


class Batched(Scenario):
    """A command whose batches differ from start to start: only choices and texts are compared."""

    fresh = True

    def content(self, output: Path) -> Content:
        """Return choices and texts, and which other files there are."""
        found: Content = {}
        for name, value in super().content(output).items():
            of_samples = Path(name).parent.name == "samples"
            found[name] = [_said(sample) for sample in value] if of_samples else "a file"
        return found


class Workers(Batched):
    """`darumeru run` by two workers on Ray."""

    name = "workers"
    lingers = 150.0  # Ray's agents ask once a minute whether their node lives

    def make(self) -> None:
        """Write a base model."""
        from support.tiny import make_model

        make_model(self.inputs / "base", chat=False)

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return [*Run.command(self, output, beside), "--workers", "2"]  # type: ignore[arg-type]


class Vllm(Batched):
    """`darumeru run` on vLLM, which takes half a minute to start."""

    name = "vllm"
    seconds = 300.0
    asked = True

    def make(self) -> None:
        """Write a base model whose heads are as wide as vLLM wants them."""
        from support.tiny import make_vllm_model

        make_vllm_model(self.inputs / "base", 4096)

    def command(self, output: Path, beside: Path) -> list[str]:
        """Return the command."""
        return words(
            "darumeru", "run", "--model", self.inputs / "base", "--data", "mini", "--engine", "vllm", "--dtype", "float32",
            "--tasks", "parus,cp_sent_ru", "--limit", 8, "--num-fewshot", 0, "--output", output,
        )  # fmt: skip


def _said(sample: dict[str, Any]) -> list[Any]:
    return [sample["id"], sample["pred"], [request["answer"].get("text") for request in sample["requests"]]]


_PAGES = frozenset((".html", ".md", ".parquet", ".js", ".svg", ".png", ".csv", ".tex", ".yaml"))


SCENARIOS: Sequence[type[Scenario]] = (
    Run,
    Pretrain,
    Leaderboard,
    Watch,
    LepRun,
    Study,
    Calibrate,
    Api,
    Workers,
    Pull,
    Vllm,
)
