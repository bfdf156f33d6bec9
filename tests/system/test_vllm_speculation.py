"""Speculation by vLLM itself, on a tiny model whose texts repeat themselves: the same answers from two engines in a row."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from darumeru.engines import EngineOptions, open_engine
from darumeru.engines.vllm import VLLMEngine, speculation
from darumeru.errors import UserError
from darumeru.requests import Answer, Request, Sampling
from support.real import needs_vllm
from support.tiny import make_vllm_model

pytestmark = [pytest.mark.xdist_group("vllm"), needs_vllm]


def mixed_requests() -> list[Request]:
    """Texts, of which some are drawn and some end with a text, and questions that a speculating engine cannot answer."""
    tokens = tuple(6 + (37 * i) % 590 for i in range(120))
    requests = []
    for i in range(40):
        prompt = tokens[i : i + 12] * 2
        until = ("a", "о") if i % 4 == 0 else ()
        requests.append(Request(f"g/{i}", "generate", prompt, "", max_tokens=20 + i, until=until))
    for i in range(4):
        requests.append(Request(f"d/{i}", "generate", tokens[i : i + 9], "", max_tokens=12).drawn(Sampling(1.0), i))
        requests.append(Request(f"c/{i}", "choose", tokens[i : i + 20], "", labels=(((20,), (9, 20)), ((21,),))))
        requests.append(Request(f"r/{i}", "rank", tokens[i : i + 20], "", continuations=(tokens[3:9], tokens[40:46])))
    return requests


def test_two_engines_in_a_row_answer_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    folder = make_vllm_model(tmp_path / "model", 128)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loads: list[bool] = []
    real = VLLMEngine._load

    def noted(self: VLLMEngine, *, speculating: bool) -> None:
        loads.append(speculating)
        real(self, speculating=speculating)

    monkeypatch.setattr(VLLMEngine, "_load", noted)

    def open_vllm(**model_args: Any) -> Any:
        options = EngineOptions(device="cpu", max_len=128, context_len=128, model_args=model_args)
        return open_engine("vllm", folder, tokenizer, frozenset({1}), options)

    def ask(engine: Any, requests: list[Request]) -> dict[str, Answer]:
        found = [a for batch in engine.answers(requests) for a in batch]
        assert len(found) == len(requests)
        return {a.id: a for a in found}

    requests = mixed_requests()
    with open_vllm(speculate="off") as engine:
        want = ask(engine, requests)
    assert loads == [False]
    monkeypatch.setattr(speculation, "LOADINGS", 0)  # a tiny model is quick
    monkeypatch.setattr(speculation, "LEAST_TOKENS", 1.0)
    monkeypatch.setattr("darumeru.engines.vllm.engine.SAMPLED", 8)
    loads.clear()
    with open_vllm() as engine:
        got = ask(engine, requests)
        assert loads == [False, True], "some texts told that it pays"
        again = ask(engine, [r for r in requests if r.id[0] in "cr"])
        assert loads == [False, True, False]
    for id_, answer in want.items():
        assert (got[id_].tokens, got[id_].text, got[id_].finish) == (answer.tokens, answer.text, answer.finish), id_
        assert got[id_].logprobs == pytest.approx(answer.logprobs, abs=1e-3)
    assert all(again[i].logprobs == pytest.approx(want[i].logprobs, abs=1e-3) for i in again)


def test_vllms_own_setting_is_for_texts_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exclude each other"):
        VLLMEngine.check_args({"speculate": "on", "speculative_config": {}})
    engine = object.__new__(VLLMEngine)
    engine._args = {"speculative_config": {"method": "ngram"}}
    engine.check_kinds({"generate"})
    with pytest.raises(UserError, match="no probabilities of labels where it speculates"):
        engine.check_kinds({"generate", "choose"})
