"""When a model is cut up among the processes of a training, and what is said of what cannot be done."""

import os
from typing import Any

import pytest

from darumeru.errors import UserError
from lep.calibration.rows import filled_up
from lep.model.processes import is_asked, without_accelerate
from lep.pretraining.arguments import is_sharded
from lep.pretraining.settings import settings_of

TWO = {"WORLD_SIZE": "2"}
ACCELERATE = {**TWO, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "false"}


def test_the_option_and_accelerate_ask_for_it() -> None:
    assert not is_asked(False, {})
    assert not is_asked(False, TWO)
    assert not is_asked(False, {**ACCELERATE, "ACCELERATE_USE_FSDP": "false"})
    assert is_asked(True, TWO)
    assert is_asked(False, ACCELERATE)


@pytest.mark.parametrize(
    ("fsdp", "environment", "message"),
    [
        (True, {}, "there is one: start several, torchrun"),
        (False, {**ACCELERATE, "WORLD_SIZE": "1"}, "there is one"),
        (False, {**ACCELERATE, "FSDP_VERSION": "1"}, "add --fsdp_version 2"),
        (False, {**ACCELERATE, "FSDP_OFFLOAD_PARAMS": "true"}, "leave --fsdp_offload_params out"),
        (False, {**ACCELERATE, "FSDP_ACTIVATION_CHECKPOINTING": "true"}, "take --gradient-checkpointing"),
    ],
)
def test_what_cannot_be_done_is_said(fsdp: bool, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        is_asked(fsdp, environment)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "4bit", "train": "new-rows+lora"}, "--quantize does not work under FSDP"),
        ({"suite": "darumeru-train"}, "--suite does not work under FSDP.*darumeru watch"),
        ({"cache_hidden_gb": 1.0, "train": "head"}, "--cache-hidden-gb does not work under FSDP"),
    ],
)
def test_settings_that_need_a_whole_model_are_refused(
    settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_sharded(settings_of(**settings))
    with pytest.raises(UserError, match=message):
        is_sharded(settings_of(**settings, fsdp=True))


def test_accelerate_does_not_cut_it_up_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with without_accelerate():
        assert "ACCELERATE_USE_FSDP" not in os.environ
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"


def test_processes_get_as_many_rows() -> None:
    assert filled_up([[0], [1, 2], [3]], 1) == [[0], [1, 2], [3]]
    assert filled_up([[0], [1, 2], [3]], 2) == [[0], [1, 2], [3], []]
    assert filled_up([[0]], 4) == [[0], [], [], []]
