"""The plan of the whole suite with a real tokenizer: what prompts share changes no token of them."""

from pathlib import Path
from typing import Any

import pytest

from darumeru.evaluation import prepare
from darumeru.settings import settings_of


@pytest.mark.parametrize("mode", ["instruct", "foundation"])
def test_shared_examples_change_no_token(smollm2: Path, mode: Any) -> None:
    plan = prepare(settings_of(model=str(smollm2), data="mini", mode=mode, num_fewshot=5, engine="hf", device="cpu"))
    whole = [r for r in plan.requests if not r.truncated]
    ids = plan.tokenizer([r.text for r in whole], add_special_tokens=mode == "foundation")["input_ids"]
    assert [list(r.prompt) for r in whole] == ids
    shared = [r for r in whole if r.packed.head]
    assert len(shared) > len(whole) * 0.7
    kept = sum(len(r.packed.tail) for r in shared) + sum(len(h) for h in {r.packed.head for r in shared})
    assert kept < 0.6 * 4 * sum(r.prompt_tokens for r in shared)
