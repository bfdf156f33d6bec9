"""Every kind of cache that transformers has: what the hf engine says is what plain passes say, whatever it shares and pads."""

from typing import Any

import pytest
import torch

from darumeru.engines import EngineOptions
from darumeru.engines.hf import HFEngine, caches, forward
from darumeru.requests import Answer, Request
from support.real import load_benchmark

architectures = load_benchmark("architectures")

FORGETFUL = ("Bamba", "Jamba", "Mamba", "Falcon-Mamba")
"""Go on from a state as if it were empty, without an error (transformers 5.19)."""
OWN_CACHE = ("RecurrentGemma", "MiniMax", "RWKV")


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_answers_are_those_of_plain_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices, rankings, likelihoods and texts, with shared prefixes and without, in batches of uneven lengths."""
    monkeypatch.setattr(forward, "PIECE", 3)  # rows leave a batch of short texts too
    found = architectures.compare(name)
    assert found.differences.pop("generate") == 0
    assert max(found.differences.values()) < 5e-4, found.differences
    if name in (*FORGETFUL, *OWN_CACHE):
        assert found.continues is False, "its cache can be shared now: nothing is wrong, and this list can be shorter"
    else:
        assert found.continues, "what can be shared is"
    assert found.pads is (name not in OWN_CACHE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_that_can_be_shared_is_found_in_16_bits_too(dtype: torch.dtype) -> None:
    for name in ("Llama", "Gemma 3", "Qwen3.5", "Falcon-H1", "LFM2"):
        model = architectures.build(name).to(dtype)
        tokens = tuple(range(3, 60))
        assert caches.continues(model, caches.cache_name(model), tokens), name


def test_a_prefix_that_is_shared_is_computed_once() -> None:
    """Also where the cache holds states; the rows behind it are computed without it."""
    model = architectures.build("Qwen3.5")
    shapes = []
    real = model.model.forward

    def spy(*args: Any, **inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return real(*args, **inputs)

    model.model.forward = spy
    asked = [r for r in architectures.requests() if r.id.startswith("choose, shared")]
    options = EngineOptions(dtype="float32", device="cpu")
    engine = HFEngine(model, architectures.NoTokenizer(), frozenset({architectures.EOS}), options)
    list(engine.answers(asked))
    assert shapes.count((1, 70)) == 1
    assert max(width for rows, width in shapes if rows > 2) < 70


def small_memory(size: int) -> Any:
    """An allocator in place of a GPU's: no tensor that a pass makes may be larger than so many bytes."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Allocator(TorchDispatchMode):
        failures = passes = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
            for tensor in tree_leaves(made):
                if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in known:
                    self.passes += "embedding" in str(func)
                    if tensor.untyped_storage().nbytes() > size:
                        self.failures += 1
                        raise torch.OutOfMemoryError(f"no room for {tensor.untyped_storage().nbytes()} bytes")
            return made

    return Allocator()


def answers_of(model: Any, asked: list[Request]) -> dict[str, Answer]:
    options = EngineOptions(dtype="float32", device="cpu", model_args={"batch_tokens": 100_000})
    engine = HFEngine(model, architectures.NoTokenizer(), frozenset({architectures.EOS}), options)
    engine.budget.scored = engine.budget.held = 100_000  # a GPU's
    return {a.id: a for batch in engine.answers(asked) for a in batch}


def test_out_of_memory_costs_a_few_passes_and_changes_nothing() -> None:
    """The limit follows from what failed: it is not lowered again and again for batches that were cut before."""
    model = architectures.build("Llama")
    asked = [r for seed in range(12) for r in architectures.requests(seed)]
    asked = [
        Request(f"{n}", r.kind, r.prompt, "", r.labels, r.continuations, r.max_tokens) for n, r in enumerate(asked)
    ]
    want = answers_of(model, asked)
    with small_memory(300_000) as memory:
        got = answers_of(model, asked)
    assert 1 <= memory.failures <= 8, "a few halvings for all ways to compute"
    assert memory.passes < len(asked), "batches stay as large as memory allows"
    for id_, answer in want.items():
        assert not got[id_].error
        assert got[id_].logprobs == pytest.approx(answer.logprobs, abs=1e-4)
        assert got[id_].tokens == answer.tokens


def test_what_never_fits_is_named_and_the_others_are_answered() -> None:
    model = architectures.build("Llama")
    labels = (((20,),), ((21,),))
    asked = [Request(f"{n}", "choose", tuple(range(3, 3 + n)), "", labels=labels) for n in (10, 20, 30, 200)]
    # A sequence of 200 tokens has 200 x 48 values of four bytes inside a block.
    with small_memory(20_000):
        got = answers_of(model, asked)
    assert "out of memory on one prompt of 200 tokens (200)" in got["200"].error
    assert not any(got[i].error for i in ("10", "20", "30"))


def test_a_ranking_is_split_where_its_rows_do_not_fit_together() -> None:
    """The prompt's cache counts for every continuation."""
    model = architectures.build("Llama")
    continuations = tuple((3 + i, 40 + i, 90 + i) for i in range(60))
    asked = [Request("r", "rank", tuple(range(3, 150)), "", continuations=continuations)]
    want = answers_of(model, asked)["r"]
    # One row's keys of a layer: 2 heads x 150 tokens x 8 x 4 bytes.
    with small_memory(10 * 2 * 150 * 8 * 4) as memory:
        got = answers_of(model, asked)["r"]
    assert 1 <= memory.failures <= 4
    assert got.logprobs == pytest.approx(want.logprobs, abs=1e-5)


def test_a_context_is_filled_to_its_last_token() -> None:
    """A model with learned positions has none beyond it: a prompt that fills it does not wait for another one's answer."""
    model = architectures.build("GPT-2")
    tokens = tuple(3 + i % 300 for i in range(512))
    asked = [
        Request("g/0", "generate", tokens[:500], "", max_tokens=12),
        Request("g/1", "generate", tokens[:511], "", max_tokens=1),
        Request("g/2", "generate", tokens[:40], "", max_tokens=12),
        Request("c/0", "choose", tokens[:511], "", labels=(((20,),), ((21,),))),
        Request("l/0", "likelihood", tokens[:1], "", continuations=(tokens[1:],)),
        Request("r/0", "rank", tokens[:500], "", continuations=(tokens[:12], tokens[5:17])),
        Request("x/0", "rank", tokens[:500], "", continuations=(tokens[:13], tokens[5:18])),
    ]
    options = EngineOptions(dtype="float32", device="cpu", context_len=512)
    engine = HFEngine(model, architectures.NoTokenizer(), frozenset({architectures.EOS}), options)
    got = {a.id: a for batch in engine.answers(asked) for a in batch}
    assert "513 tokens with its answer, and the context of the model holds 512" in got.pop("x/0").error
    for request in asked[:-1]:
        want = architectures.plain(model, request)
        assert got[request.id].logprobs == pytest.approx(want.logprobs, abs=1e-3)
        assert got[request.id].tokens == want.tokens
