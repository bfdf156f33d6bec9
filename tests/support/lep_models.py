"""The architectures that are promised, small enough to build in milliseconds."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
PLAIN = {key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "head_dim")}
EYES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
QWEN_EYES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "depth": 1,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 16,
    "num_position_embeddings": 16,
}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
SEEN = {
    f"{name}_token_id": 2 + number
    for number, name in enumerate(
        ("image", "video", "vision_start", "vision_end", "image_start", "image_end", "video_start", "video_end")
    )
}
TURNED = {key: value for key, value in SIZES.items() if key != "head_dim"} | {"rope_parameters": ROPE}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1}

ARCHITECTURES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**SIZES, "tie_word_embeddings": False}),
    "llama-tied": ("LlamaConfig", "LlamaForCausalLM", {**SIZES, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", "MistralForCausalLM", SIZES),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", {**SIZES, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", SIZES),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", SIZES),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", SIZES),
    "phi": ("PhiConfig", "PhiForCausalLM", PLAIN),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", PLAIN),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt-neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", PLAIN),
    "gemma3-multimodal": (
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {"text_config": SIZES, "vision_config": EYES, "mm_tokens_per_image": 4},
    ),
    "mistral3": (
        "Mistral3Config",
        "Mistral3ForConditionalGeneration",
        {
            "image_token_index": 2,
            "text_config": SIZES | {"model_type": "mistral"},
            "vision_config": EYES,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2.5-vl": (
        "Qwen2_5_VLConfig",
        "Qwen2_5_VLForConditionalGeneration",
        SEEN | {"text_config": TURNED, "vision_config": QWEN_EYES, "tie_word_embeddings": False},
    ),
    "qwen3-vl": (
        "Qwen3VLConfig",
        "Qwen3VLForConditionalGeneration",
        SEEN
        | {
            "text_config": SIZES | {"rope_parameters": ROPE},
            "vision_config": QWEN_EYES | {"deepstack_visual_indexes": [0]},
            "tie_word_embeddings": True,
        },
    ),
    "glm4v": (
        "Glm4vConfig",
        "Glm4vForConditionalGeneration",
        SEEN | {"text_config": TURNED, "vision_config": QWEN_EYES, "tie_word_embeddings": False},
    ),
}
SEEING = ("mistral3", "qwen2.5-vl", "qwen3-vl", "glm4v")
"""Those that transformers maps as models of images and texts only."""

ENGLISH = [
    "the quick brown fox jumps over the lazy dog and the cat sat on the mat",
    "a language model predicts the next token of a text from the tokens before it",
    "there is nothing either good or bad but thinking makes it so",
]
RUSSIAN = [
    "съешь ещё этих мягких французских булок да выпей чаю",
    "языковая модель предсказывает следующий токен текста по предыдущим токенам",
    "мороз и солнце день чудесный ещё ты дремлешь друг прелестный",
]
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_byte_level(
    folder: Path, texts: Sequence[str], size: int, *, special: Sequence[str] = ("<|begin|>", "<|end|>")
) -> Path:
    """A byte-level BPE tokenizer folder, special tokens first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return _save(made, folder, special)


def save_sentencepiece(folder: Path, texts: Sequence[str], size: int) -> Path:
    """A SentencePiece-style BPE tokenizer folder with byte fallback, as Llama-2 and Mistral have them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    made = Tokenizer(models.BPE(unk_token=special[0], byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[*special, *(f"<0x{n:02X}>" for n in range(256))], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    spec = json.loads(made.to_str())
    spec["added_tokens"] = [entry for entry in spec["added_tokens"] if entry["content"] in special]
    made = Tokenizer.from_str(json.dumps(spec))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _save(made, folder, special)


def _save(made: Any, folder: Path, special: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "TokenizersBackend", "bos_token": special[0], "eos_token": special[1]}
    if "<unk>" in special:
        config |= {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def add_special(folder: Path, texts: Sequence[str]) -> None:
    """Append special tokens to a tokenizer folder, as instruct models do."""
    from tokenizers import AddedToken, Tokenizer

    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.add_special_tokens([AddedToken(text, special=True) for text in texts])
    made.save(str(folder / "tokenizer.json"))
