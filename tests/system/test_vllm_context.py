"""A context filled to its last token by vLLM itself, on a tiny model; models that are loaded one after another in one process."""

import gc
from pathlib import Path

import pytest

from darumeru.engines import EngineOptions, open_engine
from darumeru.errors import DarumeruError
from darumeru.requests import Answer, Request
from support.real import needs_vllm
from support.tiny import make_vllm_model

pytestmark = [pytest.mark.xdist_group("vllm"), needs_vllm]

CONTEXT = 96


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a context of 96 tokens."""
    return make_vllm_model(tmp_path_factory.mktemp("models") / "short", CONTEXT)


def full_requests() -> list[Request]:
    """Requests that fill the context with their answers, and one that is a token longer."""
    tokens = tuple(6 + (37 * i) % 590 for i in range(2 * CONTEXT))

    def some(count: int, start: int = 0) -> tuple[int, ...]:
        return tokens[start : start + count]

    return [
        Request("choose/0", "choose", some(95), "", labels=(((20,),), ((21,),))),
        Request("choose/1", "choose", some(94), "", labels=(((20,), (9, 20)), ((21,), (9, 21)))),
        Request("rank/0", "rank", some(90), "", continuations=(some(6), some(6, 7), some(6, 19))),
        Request("likelihood/0", "likelihood", some(80), "", continuations=(some(16, 3), some(1))),
        Request("likelihood/1", "likelihood", some(1), "", continuations=(some(95, 1),)),
        Request("generate/0", "generate", some(90), "", max_tokens=6),
        Request("generate/1", "generate", some(95), "", max_tokens=1),
        Request("long/0", "likelihood", some(90), "", continuations=(some(7),)),
    ]


def answers_of(name: str, folder: Path) -> dict[str, Answer]:
    from transformers import AutoTokenizer

    options = EngineOptions(device="cpu", max_len=CONTEXT, context_len=CONTEXT)
    with open_engine(name, folder, AutoTokenizer.from_pretrained(folder), frozenset({1}), options) as engine:
        assert engine.describe()["dtype"] == "float32", "auto computes in the type of the checkpoint on both engines"
        return {a.id: a for batch in engine.answers(full_requests()) for a in batch}


def memory() -> float:
    """GiB that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**30


def test_the_last_token_of_a_context_is_scored(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice: the first model's memory is free when the second is loaded."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    want = answers_of("hf", short)
    found, held = [], []
    for _ in range(2):
        found.append(answers_of("vllm", short))
        held.append(memory())
    assert held[1] < held[0] + 0.5, "one GiB of cache, and the model"
    for got in found:
        assert got.pop("long/0").error.startswith("the prompt has 97 tokens with its answer")
        for id_, answer in got.items():
            assert not answer.error, answer.error
            assert answer.logprobs == pytest.approx(want[id_].logprobs, abs=1e-3), id_
            assert (answer.greedy, answer.tokens) == (want[id_].greedy, want[id_].tokens)


def test_a_context_that_the_model_does_not_have_is_refused_in_vllms_words(short: Path) -> None:
    from transformers import AutoTokenizer

    options = EngineOptions(device="cpu", max_len=CONTEXT + 1)
    with pytest.raises(DarumeruError, match=r"max_model_len \(97\) is greater than the derived max_model_len"):
        open_engine("vllm", short, AutoTokenizer.from_pretrained(short), frozenset({1}), options)
