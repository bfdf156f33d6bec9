"""Trainings whose model is cut up among two processes (FSDP2 over gloo), held against those of one process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darumeru.watch.checkpoints import find_checkpoints
from lep.calibration import calibrate
from lep.calibration.work import WHOLE
from lep.measure.held_out import BITS, SHARE
from lep.pretraining.checkpoints import checkpoints
from lep.pretraining.job import pretrain
from lep.pretraining.settings import settings_of
from support.chats import chat
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level
from support.pretraining import documents, losses, make_base, model_of, small
from support.together import kill_together, run_together

TOLERANCE = 1e-5
"""Of losses in float32: sums of two processes are added in another order than those of one. The same for bits per byte."""
WEIGHTS = 1e-5
"""Of weights after a few steps of 1e-2."""

CASES: dict[str, dict[str, Any]] = {
    "all": {"train": "all", "shared_learning_rate": 1e-3},
    "tied": {"train": "head:0.5,embeddings", "gradient_checkpointing": True},
    "new-rows": {
        "train": "new-rows+lora",
        "anchor": 2,
        "max_grad_norm": 0.5,
        "held_out_characters": 200,
        "eval_steps": 9,
    },
    "embeddings": {"train": "embeddings+lora", "anchor": 2, "packing": False},
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in documents()))
    return path


def assert_same_weights(found: Path, wanted: Path) -> None:
    one, other = model_of(found).state_dict(), model_of(wanted).state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=WEIGHTS, msg=name)


def call(base: Path, corpus: Path, output: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of `pretrain`, the settings as JSON."""
    settings = small(**{"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 1, **changes})
    return {"model": base, "corpus": [corpus], "output": output, "settings": settings.model_dump(mode="json")}


def alone(arguments: dict[str, Any]) -> dict[str, Any]:
    """Train in this process what two processes were given to train."""
    settings = settings_of(**arguments["settings"] | {"fsdp": False})
    return pretrain(**arguments | {"settings": settings})


def test_a_model_cut_up_among_processes_is_trained_as_a_whole_one(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    """Matrices, layers, new rows and LoRA; head and embedding as one matrix and as two; what is measured on the way."""
    given = {}
    for name, changes in CASES.items():
        base = make_base(make_model, "llama-tied" if name == "tied" else "llama", name)
        given[name] = call(base, corpus, tmp_path / f"two-{name}", **changes, fsdp=True)
    given["new-rows"]["held_out"] = [str(corpus)]
    given["all"]["original"] = save_byte_level(make_model("original", "llama", rows=300), ENGLISH, 300)
    run_together([{"pretrain": arguments} for arguments in given.values()], tmp_path / "calls.json")
    for name, arguments in given.items():
        one, two = tmp_path / f"one-{name}", arguments["output"]
        wanted = alone(arguments | {"output": one})["measures"]
        found = json.loads((two / "lep.json").read_text())["measures"]
        assert losses(two) == pytest.approx(losses(one), abs=TOLERANCE), name
        for measure in (BITS, SHARE) if name == "new-rows" else ():
            assert found[measure] == pytest.approx(wanted[measure], abs=TOLERANCE)
        watched = find_checkpoints(two / "checkpoints", settle=0.0)  # by `darumeru watch`
        assert {step: found.state for step, found in watched.items()} == {2: "whole", 4: "whole"}
        for checkpoint in watched.values():
            assert_same_weights(checkpoint.path, one / "checkpoints" / checkpoint.path.name)
        assert_same_weights(two, one)


def test_a_killed_training_goes_on_in_any_number_of_processes(
    make_model: Callable[..., Path], corpus: Path, tmp_path: Path
) -> None:
    base = make_base(make_model, "llama")
    changes = {"train": "embeddings+lora", "max_steps": 16, "save_steps": 3, "fsdp": True}
    whole, killed, single = (tmp_path / name for name in ("whole", "killed", "single"))
    history = killed / "history.jsonl"
    kill_together(
        [{"pretrain": call(base, corpus, killed, **changes)}],
        tmp_path / "killed.json",
        lambda: history.is_file() and history.read_text().count("\n") >= 7,
    )
    assert checkpoints(killed / "checkpoints")
    assert not (killed / "lep.json").exists()
    shutil.copytree(killed, single)
    run_together(
        [{"pretrain": call(base, corpus, output, **changes)} for output in (killed, whole)], tmp_path / "again.json"
    )
    alone(call(base, corpus, single, **changes))
    assert losses(killed) == pytest.approx(losses(whole), abs=1e-6)
    assert losses(single) == pytest.approx(losses(whole), abs=TOLERANCE)


def test_a_calibration_is_shared_by_processes_and_goes_on_when_killed(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Cut up and copied; an odd number of rows in a step, so that one process has an empty one."""
    special = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>")
    template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    chats = tmp_path / "chats.jsonl"
    words = [word for text in ENGLISH + RUSSIAN for word in text.split()[:4]]
    chats.write_text("".join(json.dumps({"messages": chat(f"say {word}", f"{word}!")}) + "\n" for word in words))
    given = {}
    for kind, fsdp in (("llama", True), ("llama-tied", False)):
        folder = save_byte_level(make_model(kind, kind, rows=448), ENGLISH + RUSSIAN, 400, special=special)
        (folder / "chat_template.jinja").write_text(template)
        given[kind] = {
            "model": folder, "data": chats, "output": tmp_path / f"two-{kind}", "batch": 7, "max_length": 48,
            "max_steps": 8, "learning_rate": 1e-3, "device": "cpu", "fsdp": fsdp, "save_every": 1,
        }  # fmt: skip
    calls = [{"calibrate": arguments} for arguments in given.values()]
    reached = tmp_path / "two-llama.training" / "checkpoint-2" / WHOLE
    kill_together(calls, tmp_path / "killed.json", reached.is_file)
    assert not (tmp_path / "two-llama").exists()
    run_together(calls, tmp_path / "calls.json")
    for kind, arguments in given.items():
        wanted = calibrate(**arguments | {"output": tmp_path / f"one-{kind}", "fsdp": False})["measures"]
        found = json.loads((arguments["output"] / "lep.json").read_text())["measures"]
        assert found["rows"] == wanted["rows"]
        assert found["rows"] / found["steps"] % 2 == 1
        assert dict(found["losses"]) == pytest.approx(dict(wanted["losses"]), abs=TOLERANCE)
        assert_same_weights(arguments["output"], tmp_path / f"one-{kind}")
