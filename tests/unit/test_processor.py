"""What is said of a processor that computes 16-bit floats slowly."""

from typing import Any

import pytest
import torch

from darumeru.processor import slow_here

# What matters of PyTorch 2.13's answer; the first was given on an AMD EPYC of the 7003 series.
PLAIN = {"architecture": "x86_64", "avx2": True, "avx512_bw": False, "avx512_bf16": False, "avx_ne_convert": False}
WIDE = {**PLAIN, "avx512_bw": True}
CONVERTS = {**PLAIN, "avx_ne_convert": True}
ARM = {"architecture": "aarch64"}


@pytest.mark.parametrize(("capabilities", "slow"), [(PLAIN, True), (WIDE, False), (CONVERTS, False), (ARM, False)])
def test_half_precision_is_slow_where_there_are_no_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], slow: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    for dtype in ("bfloat16", "float16"):
        said = slow_here(dtype)
        assert (said is not None) == slow
        assert said is None or (dtype in said and "--dtype float32" in said)
    assert slow_here("float32") is slow_here("auto") is None


def test_an_older_pytorch_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert slow_here("bfloat16") is None
    assert slow_here("float32") is None
