"""Trainings whose model is cut up among two processes (FSDP2 over gloo), held against the training of one process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lep.pretraining.checkpoints import checkpoints
from support.pretraining import NEW_FROM, documents, losses, make_base, model_of

TOLERANCE = 1e-5
"""Of losses in float32: the sums of two processes are added in another order than those of one."""

SETTINGS = (
    "--block-size", "48", "--total-batch-size", "4", "--per-device-train-batch-size", "1", "--max-steps", "6",
    "--save-steps", "2", "--logging-steps", "1", "--warmup-steps", "1", "--device", "cpu", "--learning-rate", "1e-2",
    "--new-from", str(NEW_FROM),
)  # fmt: skip


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


def started(arguments: Sequence[Any], processes: int, environment: dict[str, str] | None = None) -> Any:
    """Run `python -m lep` in so many processes; returns what came of it."""
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    return subprocess.run(
        [sys.executable, "-m", *(launcher if processes > 1 else []), "lep", *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=200,
    )


def pretrained(base: Path, corpus: Path, output: Path, *more: str, processes: int = 1) -> Path:
    command = ["pretrain", "--model", base, "--corpus", corpus, "--output", output, *SETTINGS, *more]
    done = started(command, processes)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def assert_same_weights(found: Path, wanted: Path, tolerance: float) -> None:
    one, other = model_of(found).state_dict(), model_of(wanted).state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize(
    ("kind", "what", "more"),
    [
        ("llama", "all", ()),
        ("llama-tied", "head:0.5,embeddings", ()),
        ("llama", "new-rows+lora", ("--anchor", "2", "--replay", "{corpus}=0.3")),
        ("llama", "embeddings+lora", ("--anchor", "2", "--max-grad-norm", "0.5")),
    ],
)
def test_a_model_cut_up_among_processes_is_trained_as_a_whole_one(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path, kind: str, what: str, more: tuple[str, ...]
) -> None:
    base = make_base(make_model, kind)
    words = ["--train", what, *(word.format(corpus=corpus) for word in more)]
    one = pretrained(base, corpus, tmp_path / "one", *words)
    two = pretrained(base, corpus, tmp_path / "two", *words, "--fsdp", processes=2)
    assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE)
    for (step, found), (same, wanted) in zip(
        checkpoints(two / "checkpoints"), checkpoints(one / "checkpoints"), strict=True
    ):
        assert step == same
        assert_same_weights(found, wanted, 1e-4)
    assert_same_weights(two, one, 1e-4)
