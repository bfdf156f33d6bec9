"""Every cache of transformers through the hf engine, held against plain passes without cache, batch or padding.

    python benchmarks/architectures.py [NAME …]

Models of a few dimensions with random weights, in float32: four operations each, with a prefix that the engine may share and
without one. Prints the largest difference of a log-probability, and how many generated texts differ.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from darumeru.requests import Answer, Request

VOCABULARY = 320
EOS = 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": 2,
    "initializer_range": 0.3,
}
WINDOW = {"sliding_window": 16}
LINEAR = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention"] * 3 + ["full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
STATES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "state_size": 8,
    "num_hidden_layers": 2,
    "bos_token_id": 0,
    "eos_token_id": EOS,
    "pad_token_id": 2,
    # As large as in a trained model, so that what is forgotten shows.
    "time_step_min": 0.5,
    "time_step_max": 0.9,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("LlamaConfig", SIZES),
    "Qwen3": ("Qwen3Config", SIZES),
    "Mistral, sliding": ("MistralConfig", SIZES | WINDOW),
    "Gemma 2": ("Gemma2Config", SIZES | WINDOW),
    "Gemma 3": ("Gemma3TextConfig", SIZES | WINDOW),
    "Gemma 3n": (
        "Gemma3nTextConfig",
        SIZES
        | WINDOW
        | {
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "num_kv_shared_layers": 2,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "altup_num_inputs": 2,
            "laurel_rank": 8,
        },
    ),
    "gpt-oss": ("GptOssConfig", SIZES | WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Llama 4": (
        "Llama4TextConfig",
        SIZES
        | {"num_hidden_layers": 4, "num_local_experts": 2, "attention_chunk_size": 16, "intermediate_size_mlp": 48},
    ),
    "DeepSeek-V3": (
        "DeepseekV3Config",
        {key: value for key, value in SIZES.items() if key != "head_dim"}
        | {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "Qwen3.5": ("Qwen3_5TextConfig", SIZES | LINEAR),
    "Qwen3-Next": ("Qwen3NextConfig", SIZES | LINEAR | EXPERTS | {"shared_expert_intermediate_size": 16}),
    "OLMo hybrid": ("OlmoHybridConfig", SIZES | LINEAR),
    "LFM2": (
        "Lfm2Config",
        SIZES | {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"], "block_multiple_of": 16},
    ),
    "Falcon-H1": ("FalconH1Config", SIZES | MAMBA | {"mamba_d_ssm": 64}),
    "Granite 4": (
        "GraniteMoeHybridConfig",
        SIZES
        | MAMBA
        | {
            "num_hidden_layers": 3,
            "layer_types": ["mamba", "attention", "mamba"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 16,
        },
    ),
    "Bamba": ("BambaConfig", SIZES | MAMBA | {"num_hidden_layers": 3, "attn_layer_indices": [1]}),
    "Jamba": (
        "JambaConfig",
        SIZES
        | {
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
        },
    ),
    "Nemotron-H": (
        "NemotronHConfig",
        {key: value for key, value in SIZES.items() if key != "num_hidden_layers"}
        | {
            "layers_block_type": ["mamba", "attention", "mlp", "mamba"],
            "ssm_state_size": 8,
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "chunk_size": 16,
            "use_mamba_kernels": False,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 16,
        },
    ),
    "Zamba 2": (
        "Zamba2Config",
        SIZES
        | {
            "num_hidden_layers": 3,
            "layers_block_type": ["mamba", "hybrid", "mamba"],
            "num_key_value_heads": 4,
            "mamba_d_state": 8,
            "mamba_ngroups": 2,
            "n_mamba_heads": 8,
            "chunk_size": 16,
            "use_mamba_kernels": False,
        },
    ),
    "Mamba": ("MambaConfig", STATES | {"time_step_rank": 4}),
    "Falcon-Mamba": ("FalconMambaConfig", STATES | {"time_step_rank": 4}),
    "Mamba 2": ("Mamba2Config", STATES | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 16}),
    "RecurrentGemma": (
        "RecurrentGemmaConfig",
        {key: value for key, value in SIZES.items() if key != "head_dim"}
        | {"num_hidden_layers": 3, "attention_window_size": 16, "lru_width": 32},
    ),
    "MiniMax": (
        "MiniMaxConfig",
        SIZES
        | {
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "block_size": 16,
        },
    ),
    "RWKV": (
        "RwkvConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "bos_token_id": 0, "eos_token_id": EOS},
    ),
    "BLOOM": (
        "BloomConfig",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "n_layer": 2,
            "n_head": 4,
            "eos_token_id": EOS,
            "pad_token_id": 2,
        },
    ),
    "GPT-2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "eos_token_id": EOS},
    ),
}
"""The configuration and its values of each architecture, by what people call it."""


class NoTokenizer:
    """What the engine asks of a tokenizer where nobody reads the texts."""

    pad_token_id = 2

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """Return the ids as a text."""
        return " ".join(map(str, ids))


def build(name: str) -> Any:
    """Return a tiny model of an architecture with random weights, in evaluation mode."""
    import torch
    import transformers

    config, values = ARCHITECTURES[name]
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**values)).eval()


def requests(seed: int = 0) -> list[Request]:
    """Return requests of every kind, of very different lengths; the ids say whether a prefix can be shared."""
    rng = random.Random(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, VOCABULARY) for _ in range(count))

    found = []
    head = tokens(70)
    labels = (((20,), (9, 20)), ((21,), (9, 21)), ((30, 31, 32),))
    for i, count in enumerate((1, 5, 23)):
        found.append(Request(f"choose, shared/{i}", "choose", head + tokens(count), "", labels=labels))
    for i, count in enumerate((3, 17, 40)):
        found.append(Request(f"choose/{i}", "choose", tokens(count), "", labels=labels))
    for i, count in enumerate((9, 50)):
        prompt = tokens(count)
        ranked = tuple(tokens(5) for _ in range(4))
        found.append(Request(f"rank, shared/{i}", "rank", prompt, "", continuations=ranked))
        uneven = (tokens(1), tokens(12), tokens(4))
        found.append(Request(f"likelihood, shared/{i}", "likelihood", prompt, "", continuations=uneven))
    for i, count in enumerate((1, 33)):
        prompt = tokens(count)
        found.append(Request(f"rank/{i}", "rank", prompt, "", continuations=(tokens(6),)))
        found.append(Request(f"likelihood/{i}", "likelihood", prompt, "", continuations=(tokens(20),)))
    for i, count in enumerate((2, 11, 35)):
        found.append(Request(f"generate/{i}", "generate", tokens(count), "", max_tokens=12 - 4 * i))
    return found


def plain(model: Any, request: Request) -> Answer:
    """Return the answer of one pass a sequence: no cache, no batch, no padding."""
    import torch

    @torch.inference_mode()
    def logprobs(prompt: Sequence[int], tail: Sequence[int]) -> tuple[float, bool]:
        logits = model(input_ids=torch.tensor([[*prompt, *tail]]), use_cache=False).logits[0].float()
        rows = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
        after = torch.tensor(tail)
        return float(rows.gather(1, after[:, None]).sum()), bool((rows.argmax(-1) == after).all())

    if request.kind == "generate":
        ids = list(request.prompt)
        for _ in range(request.max_tokens):
            with torch.inference_mode():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] == EOS:
                ids.pop()
                break
        return Answer(request.id, tokens=tuple(ids[len(request.prompt) :]))
    if request.kind == "choose":
        best = (max(logprobs(request.prompt, s)[0] for s in label) for label in request.labels)
        return Answer(request.id, logprobs=tuple(best))
    pairs = [logprobs(request.prompt, c) for c in request.continuations]
    if request.kind == "likelihood":
        return Answer(request.id, logprobs=tuple(v for v, _ in pairs), greedy=tuple(g for _, g in pairs))
    return Answer(
        request.id, logprobs=tuple(v / len(c) for (v, _), c in zip(pairs, request.continuations, strict=True))
    )


@dataclass
class Found:
    """What an architecture's answers are beside those of plain passes."""

    name: str
    differences: dict[str, float]
    """Of log-probabilities, by operation; of generations the number of other texts."""
    continues: bool | None
    """Whether the engine shares the cache of a prefix."""
    pads: bool | None
    """Whether it pads prompts for generations."""
    leaves: bool | None
    """Whether rows leave a batch of generations before the last has ended."""
    seconds: float


def compare(name: str, seed: int = 0) -> Found:
    """Hold one architecture's answers by the engine against plain ones."""
    from darumeru.engines import EngineOptions
    from darumeru.engines.hf import HFEngine

    began = time.perf_counter()
    asked = requests(seed)
    model = build(name)
    want = {r.id: plain(model, r) for r in asked}
    engine = HFEngine(model, NoTokenizer(), frozenset({EOS}), EngineOptions(dtype="float32", device="cpu"))
    got = {a.id: a for batch in engine.answers(asked) for a in batch}
    differences: dict[str, float] = {}
    for request in asked:
        a, b = got[request.id], want[request.id]
        operation = request.id.split("/")[0]
        pairs = zip(a.logprobs, b.logprobs, strict=True)
        apart = (
            float(a.tokens != b.tokens) if request.kind == "generate" else max(abs(x - y) for x, y in pairs)
        ) + float(a.greedy != b.greedy)
        total = differences.get(operation, 0.0)
        differences[operation] = total + apart if request.kind == "generate" else max(total, apart)
    forward = engine.forward
    return Found(
        name,
        differences,
        forward.tried_continues,
        forward.tried_pads,
        forward.tried_leaves,
        time.perf_counter() - began,
    )


def table(names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    operations = list(dict.fromkeys(r.id.split("/")[0] for r in requests()))
    yield "| architecture | " + " | ".join(operations) + " | shares caches | pads | rows leave |"
    yield "|---" * (len(operations) + 4) + "|"
    words = {True: "yes", False: "no", None: "-"}
    for name in names:
        found = compare(name)
        cells = [
            f"{v:.0f} of 3" if operation == "generate" else f"{v:.1e}" for operation, v in found.differences.items()
        ]
        cells += [words[found.continues], words[found.pads], words[found.leaves]]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {'; '.join(ARCHITECTURES)}")
    for line in table(parser.parse_args().names or list(ARCHITECTURES)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
