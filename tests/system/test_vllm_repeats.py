"""Drawn answers in vLLM: the same tokens whatever else is asked, and the distribution that the hf engine draws from."""

from collections import Counter
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from darumeru.engines import EngineOptions, open_engine
from darumeru.requests import Request, Sampling
from support.engines import collect
from support.real import needs_vllm

pytestmark = [pytest.mark.xdist_group("vllm"), needs_vllm]

SAMPLING = Sampling(0.8, top_p=0.9, top_k=6, min_p=0.05)
DRAWN = 400


def drawn(
    engine: str, model: Path, texts: list[Request], tokens: list[Request]
) -> tuple[list[list[int]], Counter[int]]:
    """Texts, asked together and in parts, and how often each first token is drawn."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    options = EngineOptions(dtype="float32", device="cpu", max_len=64)
    with open_engine(engine, model, tokenizer, frozenset({tokenizer.eos_token_id}), options) as opened:
        together = collect(opened, [*texts, *tokens])
        again = collect(opened, texts[::-1], tuple(r.id for r in texts[:2]))
    assert again == {r.id: together[r.id] for r in texts[2:]}
    return [list(together[r.id].tokens) for r in texts], Counter(together[r.id].tokens[0] for r in tokens)


def test_both_engines_draw_from_one_distribution_and_keep_to_their_seeds(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    prompt = tuple(tokenizer("My favourite season of the year is")["input_ids"])
    texts = [Request(f"t/{i}/0", "generate", prompt, "", max_tokens=6, sampling=SAMPLING, seed=i) for i in range(6)]
    tokens = [
        Request(f"f/{i}/0", "generate", prompt, "", max_tokens=1, sampling=SAMPLING, seed=100 + i) for i in range(DRAWN)
    ]
    texts_hf, first_hf = drawn("hf", smollm2, texts, tokens)
    texts_vllm, first_vllm = drawn("vllm", smollm2, texts, tokens)
    assert len({tuple(t) for t in texts_hf}) > 1
    assert len({tuple(t) for t in texts_vllm}) > 1
    assert first_hf.keys() == first_vllm.keys(), "the same tokens are left"
    assert 1 < len(first_hf) <= SAMPLING.top_k
    error = (2 * 0.25 / DRAWN) ** 0.5
    for token in first_hf:
        assert abs(first_hf[token] - first_vllm[token]) / DRAWN < 3.5 * error
