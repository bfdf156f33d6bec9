"""Language models inside multimodal ones, and types that the hf engine cannot do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from darumeru.engines import EngineOptions, open_engine
from darumeru.errors import UserError
from darumeru.requests import Request
from support.lep_models import EYES
from support.real import load_benchmark

architectures = load_benchmark("architectures")

TEXT: dict[str, Any] = {**architectures.SIZES, "tie_word_embeddings": True}
QWEN_EYES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 32,
    "deepstack_visual_indexes": [0],
    "num_position_embeddings": 16,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
WRAPPED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Gemma 3": (
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {"text_config": TEXT | {"sliding_window": 16}, "vision_config": EYES, "mm_tokens_per_image": 4},
    ),
    "Mistral 3": (
        "Mistral3Config",
        "Mistral3ForConditionalGeneration",
        {
            "text_config": TEXT | {"model_type": "mistral", "tie_word_embeddings": False},
            "vision_config": EYES,
            "tie_word_embeddings": False,
        },
    ),
    "Qwen3-VL": (
        "Qwen3VLConfig",
        "Qwen3VLForConditionalGeneration",
        {"text_config": TEXT | {"rope_parameters": ROPE}, "vision_config": QWEN_EYES, "tie_word_embeddings": True},
    ),
    "Qwen3.5": (
        "Qwen3_5Config",
        "Qwen3_5ForConditionalGeneration",
        {
            "text_config": architectures.SIZES | architectures.LINEAR,
            "vision_config": {k: v for k, v in QWEN_EYES.items() if k != "deepstack_visual_indexes"},
        },
    ),
}
WHOLE = ("Qwen3-VL",)
"""transformers has no class for the language model alone."""


def save(name: str, folder: Path) -> Any:
    """A tiny multimodal model of random weights, saved; the model."""
    config, kind, values = WRAPPED[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**values)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", WRAPPED)
def test_a_language_model_that_sees_answers_texts(name: str, tmp_path: Path) -> None:
    """As the whole model does in plain passes, and without its vision tower where it can be loaded alone."""
    whole = save(name, tmp_path)
    asked = architectures.requests()
    options = EngineOptions(dtype="float32", device="cpu")
    with open_engine("hf", tmp_path, architectures.NoTokenizer(), frozenset({architectures.EOS}), options) as engine:
        got = {a.id: a for batch in engine.answers(asked) for a in batch}
        sees = any("vis" in key for key in engine.model.state_dict())  # type: ignore[attr-defined]
    assert sees == (name in WHOLE)
    for request in asked:
        want = architectures.plain(whole, request)
        assert got[request.id].logprobs == pytest.approx(want.logprobs, abs=5e-4), request.id
        assert got[request.id].tokens == want.tokens


def test_a_model_that_continues_no_text_is_named(tmp_path: Path) -> None:
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no model of type 'vit' that continues a text\. Take a causal"):
        open_engine("hf", tmp_path, architectures.NoTokenizer(), frozenset({1}), EngineOptions(device="cpu"))


def test_a_head_of_its_own_is_not_lost(tmp_path: Path) -> None:
    """The language model's configuration ties its head, the whole model's does not: the whole one is loaded."""
    whole = save("Mistral 3", tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path)
    config.text_config.tie_word_embeddings = True
    config.save_pretrained(tmp_path)
    request = Request("c/0", "choose", (5, 9, 30), "", labels=(((20,),), ((21,),)))
    options = EngineOptions(dtype="float32", device="cpu")
    with open_engine("hf", tmp_path, architectures.NoTokenizer(), frozenset({1}), options) as engine:
        ((answer,),) = list(engine.answers([request]))
    assert answer.logprobs == pytest.approx(architectures.plain(whole, request).logprobs, abs=1e-5)
