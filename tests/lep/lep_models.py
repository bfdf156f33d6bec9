"""The architectures that are promised, small enough to build in milliseconds."""

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
        {
            "text_config": SIZES,
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
            "mm_tokens_per_image": 4,
        },
    ),
}
