"""Loading into vLLM, without vLLM: its share of a GPU, its data type, adapters of quantised models, its own words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from darumeru.engines import engine_class
from darumeru.engines.base import too_long
from darumeru.engines.vllm import loading
from darumeru.engines.vllm.engine import VLLMEngine
from darumeru.engines.vllm.loading import check_adapter, data_type, memory_share, own_words, weight_bytes
from darumeru.errors import UserError
from darumeru.inference.model import open_model
from darumeru.requests import Request

GIB = 1 << 30


def test_a_free_gpu_is_used_as_vllm_does() -> None:
    assert memory_share([(79 * GIB, 80 * GIB)], 16 * GIB) == 0.92


def test_beside_a_training_the_share_is_what_is_free() -> None:
    share = memory_share([(30 * GIB, 80 * GIB)], 16 * GIB)
    assert 0.33 <= share < 0.375, "below what is free, with room for what vLLM takes beside it"


def test_of_several_gpus_the_fullest_decides() -> None:
    assert memory_share([(79 * GIB, 80 * GIB), (40 * GIB, 80 * GIB)], 60 * GIB) <= 0.5


@pytest.mark.parametrize(
    ("gpus", "weights"), [([(10 * GIB, 80 * GIB)], 16 * GIB), ([(20 * GIB, 80 * GIB)] * 2, 60 * GIB)]
)
def test_a_model_that_does_not_fit_is_refused_with_the_numbers(gpus: list[tuple[int, int]], weights: int) -> None:
    free = gpus[0][0] // GIB
    with pytest.raises(
        UserError, match=rf"weights {weights // GIB}\.0 GiB.*{free}\.0 of 80\.0 GiB are free\. End what"
    ):
        memory_share(gpus, weights)


@pytest.mark.parametrize(
    ("build", "gpu", "possible"),
    [
        (True, False, {"auto", "cpu"}),
        (True, True, {"auto", "cpu"}),
        (False, True, {"auto", "cuda"}),
        (False, False, set()),
    ],
)
def test_a_build_computes_on_its_own_device_only(
    monkeypatch: pytest.MonkeyPatch, build: bool, gpu: bool, possible: set[str]
) -> None:
    """vLLM's build for GPUs on `--device cpu` would have taken the GPU."""
    monkeypatch.setattr("darumeru.engines.vllm.engine.is_cpu_build", lambda: build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(VLLMEngine, "available", classmethod(lambda cls: True))
    for device in ("auto", "cpu", "cuda"):
        assert VLLMEngine.computes_on(device) == (device in possible)  # type: ignore[arg-type]
        assert engine_class("auto", device).name == ("vllm" if device in possible else "hf")  # type: ignore[arg-type]
        if device not in possible:
            with pytest.raises(UserError, match=r"vLLM.*--engine hf"):
                VLLMEngine._check_device(device)  # type: ignore[arg-type]


def folder(path: Path, config: dict[str, object], tensors: dict[str, torch.Tensor] | None = None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors or {"w": torch.zeros(1)}, path / "model.safetensors")
    return path


@pytest.mark.parametrize(
    ("config", "asked", "want"),
    [
        ({"dtype": "float32"}, "auto", "float32"),  # vLLM alone would compute in 16 bits
        ({"text_config": {"torch_dtype": "float32"}}, "auto", "float32"),
        ({}, "auto", "float32"),  # the tensor says it
        ({"dtype": "bfloat16"}, "auto", "auto"),
        ({"dtype": "float32", "quantization_config": {"quant_method": "awq"}}, "auto", "auto"),
        ({"dtype": "float32"}, "bfloat16", "bfloat16"),
    ],
)
def test_auto_computes_in_the_type_of_the_checkpoint(
    tmp_path: Path, config: dict[str, object], asked: str, want: str
) -> None:
    assert data_type(folder(tmp_path / "model", config), asked) == want


LAYER = "model.layers.0.self_attn.q_proj"
LORA = {f"base_model.model.{LAYER}.lora_A.weight": torch.zeros(4, 64)}


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": torch.zeros(32, 64), "bias": torch.zeros(32)},
        {"qweight": torch.zeros(8, 32), "qzeros": torch.zeros(1, 4), "scales": torch.zeros(1, 32)},  # GPTQ
        {"qweight": torch.zeros(64, 4), "qzeros": torch.zeros(1, 4), "scales": torch.zeros(1, 32)},  # AWQ
        {"weight": torch.zeros(1024, 1), "weight.absmax": torch.zeros(32)},  # bitsandbytes, 4 bits
        {"weight_packed": torch.zeros(32, 8), "weight_shape": torch.zeros(2)},  # compressed-tensors
    ],
)
def test_an_adapter_of_a_quantised_model_is_taken(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    model = folder(tmp_path / "model", {}, {f"{LAYER}.{name}": tensor for name, tensor in tensors.items()})
    check_adapter(model, folder(tmp_path / "adapter", {}, LORA))


@pytest.mark.parametrize(
    "tensors", [{f"{LAYER}.weight": torch.zeros(32, 48)}, {"model.embed.weight": torch.zeros(9, 9)}]
)
def test_an_adapter_of_another_model_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    model = folder(tmp_path / "model", {}, tensors)
    with pytest.raises(UserError, match=r"does not fit this model.*q_proj takes 64 inputs there"):
        check_adapter(model, folder(tmp_path / "adapter", {}, LORA))


def test_vllm_speaks_for_itself() -> None:
    """What pydantic makes of vLLM's refusal begins with a count of errors."""
    from pydantic import BaseModel, ValidationError, field_validator

    class ModelConfig(BaseModel):
        length: int

        @field_validator("length")
        @classmethod
        def check(cls, value: int) -> int:
            raise ValueError(f"max_model_len ({value}) is greater than the model's\nTo allow it, set a variable.")

    with pytest.raises(ValidationError) as refused:
        ModelConfig(length=97)
    assert own_words(refused.value) == "max_model_len (97) is greater than the model's"
    assert own_words(RuntimeError("\n  no room \n more")) == "no room"


def test_a_language_model_that_sees_is_loaded_without_its_eyes(tmp_path: Path) -> None:
    assert loading.is_multimodal(folder(tmp_path / "a", {"text_config": {}, "vision_config": {}}))
    assert not loading.is_multimodal(folder(tmp_path / "b", {"hidden_size": 8}))


@pytest.mark.parametrize(
    ("request_", "need"),
    [
        (Request("c", "choose", (1,) * 9, "", labels=(((5,), (6, 5)),)), 11),
        (Request("l", "likelihood", (1,), "", continuations=((5,) * 7, (5,))), 8),
        (Request("g", "generate", (1,) * 9, "", max_tokens=3), 12),
    ],
)
def test_what_is_longer_than_the_context_is_named(request_: Request, need: int) -> None:
    assert too_long(request_, need) is None
    assert too_long(request_, None) is None
    fault = too_long(request_, need - 1)
    assert fault is not None
    assert fault.error == (
        f"the prompt has {need} tokens with its answer, and the context of the model holds {need - 1} ({request_.id})"
    )


def sparse(file: Path, dtype: str, values: int) -> None:
    """A safetensors file of one tensor that takes no room on the disk."""
    size = values * {"F32": 4, "BF16": 2, "I32": 4}[dtype]
    tensor = {"dtype": dtype, "shape": [values], "data_offsets": [0, size]}
    header = json.dumps({f"{file.stem}.weight": tensor}).encode()
    with file.open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
        handle.truncate(8 + len(header) + size)


def test_what_a_folder_holds_twice_is_loaded_once(tmp_path: Path) -> None:
    """Mistral's folders hold their shards, and all of it again in `consolidated.safetensors`."""
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for shard in shards:
        sparse(tmp_path / shard, "BF16", 1000 * 1000)
    sparse(tmp_path / "consolidated.safetensors", "BF16", 2 * 1000 * 1000)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    assert weight_bytes(tmp_path) == 4 * 1000 * 1000
    assert open_model(tmp_path).parameters == 2 * 1000 * 1000
    (tmp_path / "model.safetensors.index.json").unlink()
    for shard in shards:
        (tmp_path / shard).unlink()
    sparse(tmp_path / "model.safetensors", "BF16", 2 * 1000 * 1000)
    assert weight_bytes(tmp_path) == 4 * 1000 * 1000
    assert open_model(tmp_path).parameters == 2 * 1000 * 1000


@pytest.mark.parametrize(
    ("stored", "asked", "config", "bytes_"),
    [
        ("F32", "bfloat16", {}, 2),
        ("F32", "auto", {}, 4),
        ("BF16", "float32", {}, 4),
        ("BF16", "auto", {}, 2),
        ("F32", "auto", {"dtype": "bfloat16"}, 2),
        ("I32", "float16", {}, 4),
        ("F32", "float16", {"quantization_config": {"quant_method": "awq"}}, 4),
    ],
)
def test_weights_count_in_the_type_that_they_are_loaded_in(
    stored: str, asked: str, config: dict[str, Any], bytes_: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    sparse(tmp_path / "model.safetensors", stored, 1000)
    assert weight_bytes(tmp_path, asked) == 1000 * bytes_
