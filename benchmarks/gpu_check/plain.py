"""An engine against plain forward passes of the same model, on random prompts that share a prefix.

    python -m benchmarks.gpu_check.plain ENGINE MODEL [--device cuda] [--dtype float32] [--exact] [--repeat N] [--args K=V …]

Prints JSON: largest differences of log-probabilities by kind, how many texts are the same, the answers themselves, and the
GPU's free memory before loading and after closing.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch

from darumeru.engines import EngineOptions, open_engine
from darumeru.requests import Request

NEW = 6
"""Tokens of a generated answer."""


def requests(vocabulary: int, special: set[int]) -> list[Request]:
    """Eight prompts with one question of each kind."""
    draw = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        found: list[int] = []
        while len(found) < count:
            if (token := draw.randrange(vocabulary)) not in special:
                found.append(token)
        return tuple(found)

    prefix = tokens(24)
    asked = []
    for number in range(8):
        prompt = prefix + tokens(4 + 5 * number)
        asked += [
            Request(f"plain/{number}/choose", "choose", prompt, "", labels=tuple((tokens(1),) for _ in range(4))),
            Request(f"plain/{number}/rank", "rank", prompt, "", continuations=tuple(tokens(4) for _ in range(5))),
            Request(f"plain/{number}/likelihood", "likelihood", prompt, "", continuations=(tokens(6),)),
            Request(f"plain/{number}/generate", "generate", prompt, "", max_tokens=NEW),
        ]
    return asked


@torch.inference_mode()
def plain(model: Any, request: Request, eos_ids: frozenset[int]) -> list[Any]:
    """Log-probabilities, or generated tokens, from whole passes over one sequence at a time."""

    def rows(ids: tuple[int, ...]) -> torch.Tensor:
        logits = model(torch.tensor([ids], device=model.device), use_cache=False).logits[0]
        return torch.log_softmax(logits.float(), dim=-1).cpu()

    if request.kind == "generate":
        ids = request.prompt
        while len(ids) < len(request.prompt) + NEW and (token := int(rows(ids)[-1].argmax())) not in eos_ids:
            ids = (*ids, token)
        return list(ids[len(request.prompt) :])
    found = []
    for option in [label[0] for label in request.labels] or request.continuations:
        values = rows(request.prompt + option)[len(request.prompt) - 1 : -1]
        total = float(values.gather(1, torch.tensor(option)[:, None]).sum())
        found.append(total / len(option) if request.kind == "rank" else total)
    return found


def free_memory() -> list[int]:
    """Free bytes of each GPU."""
    return [torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())]


def main() -> None:
    """Ask, compare, print."""
    parser = argparse.ArgumentParser(description="An engine against plain passes.")
    parser.add_argument("engine")
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=["choose", "rank", "likelihood", "generate"])
    parser.add_argument("--args", nargs="*", default=[])
    chosen = parser.parse_args()
    from transformers import AutoModelForCausalLM

    from darumeru.inference.model import open_model

    known = open_model(chosen.model)
    tokenizer = known.tokenizer()
    eos_ids = known.eos_ids(tokenizer)
    config = json.loads((chosen.model / "config.json").read_text())
    vocabulary = min(len(tokenizer), config.get("vocab_size") or len(tokenizer))
    asked = [r for r in requests(vocabulary, {*tokenizer.all_special_ids, *eos_ids}) if r.kind in chosen.kinds]
    arguments: dict[str, Any] = {}
    for pair in chosen.args:
        key, _, value = pair.partition("=")
        arguments[key] = int(value) if value.isdigit() else value
    options = EngineOptions(
        dtype=chosen.dtype, device=chosen.device, max_len=256, exact=chosen.exact, model_args=arguments
    )
    before = free_memory() if chosen.repeat > 1 else []
    answers: dict[str, list[Any]] = {}
    device = ""
    for _ in range(chosen.repeat):
        engine = open_engine(chosen.engine, chosen.model, tokenizer, eos_ids, options)
        for batch in engine.answers(asked):
            answers |= {a.id: list(a.tokens if a.id.endswith("generate") else a.logprobs) for a in batch}
        device = str(engine.describe()["device"])
        engine.close()
    after = free_memory() if chosen.repeat > 1 else []
    model: Any = AutoModelForCausalLM.from_pretrained(chosen.model, dtype=torch.float32).eval()
    result: dict[str, Any] = {
        "device": device,
        "answers": answers,
        "free_before": before,
        "free_after": after,
    }
    for request in asked:
        wanted, got = plain(model, request, eos_ids), answers[request.id]
        if request.kind == "generate":
            result["texts"] = result.get("texts", 0) + (wanted == got)
        else:
            difference = max(abs(a - b) for a, b in zip(wanted, got, strict=True))
            result[request.kind] = max(result.get(request.kind, 0.0), difference)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
