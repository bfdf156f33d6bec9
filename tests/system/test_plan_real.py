"""The plan of the whole suite with a real tokenizer: what prompts share changes no token of them."""

from pathlib import Path
from typing import Any

import pytest

from darumeru.evaluation import prepare
from darumeru.files import fingerprint, read_json
from darumeru.settings import settings_of

RUN = Path(__file__).parents[2] / "leaderboards" / "runs" / "smollm2-135m-instruct-mini"


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


def test_a_model_that_does_not_think_is_asked_what_it_was_asked_before(smollm2: Path) -> None:
    """The committed record is older than thinking: its run has the same identity still, prompts and all."""
    pinned = read_json(RUN / "header.json")
    plan = prepare(settings_of(model=str(smollm2), data="mini", engine="hf", device="cpu"))
    header = plan.header()
    assert header["requests_sha256"] == pinned["requests_sha256"]
    own = {key: pinned[key] for key in ("engine", "model")}  # another engine computed it; the tokenizer was saved anew
    assert header["model"]["weights_sha256"] == pinned["model"]["weights_sha256"]
    assert fingerprint(header | own) == pinned["id"]
