"""LoRA adapters on the HF engine: what the merged model says; an adapter for another base is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
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


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("model.model.layers", "model.model.language_model.layers", "4 find no place|8 find no place"),
        (".layers.1.", ".layers.7.", r"4 find no place, the first is 'model\.layers\.7\."),
    ],
    ids=["names of another kind of model", "a deeper model's"],
)
def test_an_adapter_that_is_applied_in_part_is_refused(
    tiny_base: Path, adapter: tuple[Path, Path], tmp_path: Path, old: str, new: str, named: str
) -> None:
    """PEFT loads what it finds a place for, and leaves the rest of the base as it is."""
    folder = shutil.copytree(adapter[0], tmp_path / "lora")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k.replace(old, new): v for k, v in tensors.items()}, folder / "adapter_model.safetensors")
    options = EngineOptions(device="cpu", adapter=folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with pytest.raises(UserError, match=f"does not fit this model: of its tensors ({named})"):
        open_engine("hf", tiny_base, tokenizer, frozenset({1}), options)


def test_an_adapter_without_some_of_its_tensors_is_refused(
    tiny_base: Path, adapter: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(adapter[0], tmp_path / "lora")
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {k: v for k, v in tensors.items() if ".layers.1." not in k}
    save_file(kept, folder / "adapter_model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with pytest.raises(UserError, match=r"it has no 'model\.layers\.1\.self_attn\.q_proj\.lora_A"):
        open_engine("hf", tiny_base, tokenizer, frozenset({1}), EngineOptions(device="cpu", adapter=folder))


def test_new_rows_of_a_tied_embedding_are_an_adapter_too(tiny_base: Path, tmp_path: Path) -> None:
    """They are written once, though both embedding and head have them."""
    torch.manual_seed(2)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [20, 21]})
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), config)
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name:
            parameter.data.add_(0.5)
    model.save_pretrained(tmp_path / "lora")
    asked = torch.tensor([[5, 20, 7, 21]])
    with torch.no_grad():
        want = model.eval()(asked).logits
    options = EngineOptions(dtype="float32", device="cpu", adapter=tmp_path / "lora")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with open_engine("hf", tiny_base, tokenizer, frozenset({1}), options) as engine, torch.no_grad():
        got = engine.model(asked).logits  # type: ignore[attr-defined]
    assert torch.allclose(got, want, atol=1e-5)


def test_a_chat_template_that_is_not_used_is_told(
    tiny_base: Path, adapter: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model": str(tiny_base), "data": "mini", "tasks": ["rwsd"], "engine": "hf"}
    folder = shutil.copytree(adapter[0], tmp_path / "lora")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.save_pretrained(folder)
    prepare(settings_of(**settings, adapter=folder))
    assert "not used" not in caplog.text, "the base's own, saved once more"
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    prepare(settings_of(**settings, adapter=folder))
    assert "chat template of its own, which is not used" in caplog.text
    assert f"--tokenizer {folder}" in caplog.text
