"""LoRA adapters on the HF engine: what the merged model says; an adapter for another base is refused."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from darumeru.engines import EngineOptions, open_engine
from darumeru.errors import UserError
from darumeru.evaluation import prepare, settings_of
from support.engines import collect, open_hf, some_requests
from support.tiny import make_model

peft = pytest.importorskip("peft", reason="PEFT is not installed")


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An adapter with weights that change something, and the merged model."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), config)
    model.save_pretrained(folder / "lora")
    merged = model.merge_and_unload()
    merged.save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder / "merged")
    return folder / "lora", folder / "merged"


def test_an_adapter_says_what_the_merged_model_says(tiny_base: Path, adapter: tuple[Path, Path]) -> None:
    requests = some_requests()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    options = EngineOptions(dtype="float32", device="cpu", adapter=adapter[0])
    with open_engine("hf", tiny_base, tokenizer, frozenset({tokenizer.eos_token_id}), options) as engine:
        got = collect(engine, requests)
    with open_hf(adapter[1]) as engine:
        want = collect(engine, requests)
    with open_hf(tiny_base) as engine:
        base = collect(engine, requests)
    assert any(got[i].logprobs != pytest.approx(base[i].logprobs, abs=1e-2) for i in got)
    for id_, answer in want.items():
        assert got[id_].logprobs == pytest.approx(answer.logprobs, abs=1e-3)
        assert got[id_].tokens == answer.tokens


def test_an_adapter_makes_another_run(tiny_base: Path, adapter: tuple[Path, Path]) -> None:
    settings = {"model": str(tiny_base), "data": "mini", "tasks": ["rwsd"], "engine": "hf"}
    plain = prepare(settings_of(**settings)).header()
    adapted = prepare(settings_of(**settings, adapter=adapter[0])).header()
    assert plain["model"]["adapter_sha256"] is None
    assert len(adapted["model"]["adapter_sha256"]) == 64


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, adapter: tuple[Path, Path]) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    other = make_model(tmp_path / "other", chat=False)
    config = LlamaConfig.from_pretrained(other)
    config.hidden_size, config.intermediate_size = 48, 96
    LlamaForCausalLM(config).save_pretrained(other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    with pytest.raises(UserError, match="does not fit this model; was it trained on another base"):
        open_engine("hf", other, tokenizer, frozenset({1}), EngineOptions(device="cpu", adapter=adapter[0]))
    with pytest.raises(UserError, match=r"'adapter_config\.json' is missing"):
        prepare(settings_of(model=str(other), data="mini", tasks=["rwsd"], engine="hf", adapter=tmp_path))
