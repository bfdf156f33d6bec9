"""Quantised models on the hf engine, as far as a CPU computes them: what they say is what their own plain passes say.

GPTQ and AWQ need kernels that this test does without: of them only the loading onto a device and the adapters' shapes are tested
(`tests/unit/test_vllm_loading.py`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from darumeru.engines import EngineOptions, open_engine
from darumeru.engines.hf import loading
from darumeru.errors import UserError
from support.real import load_benchmark

architectures = load_benchmark("architectures")
WIDER = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A tiny Llama as wide as kernels of quantised layers want it."""
    torch.manual_seed(0)
    folder = tmp_path / "plain"
    config = transformers.LlamaConfig(**(architectures.SIZES | WIDER))
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def compressed(plain: Path, scheme: str) -> Path:
    """The same with weights of 8 bits, as llm-compressor saves them."""
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed (it comes with vLLM)")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme

    model = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    groups = {"group_0": preset_name_to_scheme(scheme, ["Linear"])}
    config = QuantizationConfig(config_groups=groups, ignore=["lm_head"])
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            largest = (
                module.weight.abs().amax(1, keepdim=True) / 127
                if scheme == "W8A8"
                else module.weight.abs().amax() / 448
            )
            module.weight_scale.data.copy_(largest.reshape(module.weight_scale.shape))
        if hasattr(module, "input_scale"):
            module.input_scale.data.fill_(0.02)
    compressor = ModelCompressor(quantization_config=config)
    compressor.compress_model(model)
    folder = plain.parent / scheme
    model.save_pretrained(folder)
    compressor.update_config(folder)
    return folder


def four_bits(plain: Path) -> Path:
    """The same by bitsandbytes."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    config = transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = transformers.AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(plain.parent / "nf4")
    return plain.parent / "nf4"


def agrees(folder: Path, tolerance: float, **more: Any) -> None:
    options = EngineOptions(dtype="float32", device="cpu", **more)
    asked = architectures.requests()
    with open_engine("hf", folder, architectures.NoTokenizer(), frozenset({architectures.EOS}), options) as engine:
        got = {a.id: a for batch in engine.answers(asked) for a in batch}
        assert engine.forward.tried_continues, "rounding is no reason to share nothing"  # type: ignore[attr-defined]
        assert engine.forward.tried_pads  # type: ignore[attr-defined]
        for request in asked:
            want = architectures.plain(engine.model, request)  # type: ignore[attr-defined]
            assert got[request.id].logprobs == pytest.approx(want.logprobs, abs=tolerance), request.id


@pytest.mark.parametrize(
    ("quantise", "tolerance"),
    [
        (lambda plain: compressed(plain, "FP8"), 1e-3),
        (lambda plain: compressed(plain, "W8A8"), 0.5),  # activations are rounded too, to steps of 1/127
        (four_bits, 5e-3),
    ],
    ids=["FP8", "W8A8", "NF4"],
)
def test_a_quantised_checkpoint_answers(plain: Path, quantise: Callable[[Path], Path], tolerance: float) -> None:
    agrees(quantise(plain), tolerance)


@pytest.mark.parametrize("asked", [{"quantization_config": NF4}, {"load_in_4bit": True}])
def test_a_checkpoint_is_quantised_as_it_is_loaded(plain: Path, asked: dict[str, Any]) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    agrees(plain, 5e-3, model_args=asked)


def test_what_quantises_is_not_installed(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"load_in_4bit needs bitsandbytes: pip install bitsandbytes\."):
        loading.load_model(plain, EngineOptions(device="cpu", model_args={"load_in_4bit": True}))


def test_an_adapter_on_a_quantised_base(plain: Path) -> None:
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    folder = four_bits(plain)
    model = transformers.AutoModelForCausalLM.from_pretrained(plain)
    lora = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(plain.parent / "lora")
    agrees(folder, 5e-3, adapter=plain.parent / "lora")


def test_quantised_layers_are_made_where_they_compute(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU they are loaded onto it: GPTQ's, made for a CPU, cannot be moved there."""
    asked: dict[str, Any] = {}

    class Loader:
        @staticmethod
        def from_pretrained(folder: Path, **args: Any) -> tuple[str, dict[str, Any]]:
            asked.update(args)
            return "model", {"missing_keys": set(), "mismatched_keys": set()}

    config = transformers.AutoConfig.from_pretrained(plain)
    config.quantization_config = {"quant_method": "gptq", "bits": 4}
    config.save_pretrained(plain)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "model_class", lambda _: Loader)
    assert loading.load_model(plain, EngineOptions(device="cuda")) == "model", "it is not moved"
    assert asked["device_map"] == {"": "cuda"}
