"""The hf engine on tiny models, and requests of every kind."""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from darumeru.engines import Engine, EngineOptions, open_engine
from darumeru.requests import Answer, Request


def open_hf(path: Path, **model_args: Any) -> Engine:
    tokenizer = AutoTokenizer.from_pretrained(path)
    options = EngineOptions(dtype="float32", device="cpu", model_args=model_args)
    return open_engine("hf", path, tokenizer, frozenset({tokenizer.eos_token_id}), options)


def some_requests(seed: int = 0) -> list[Request]:
    """Requests of every kind over random tokens of the tiny vocabulary, of very different lengths."""
    rng = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(6, 600) for _ in range(n))

    requests = []
    for i in range(12):
        prompt = tokens(rng.choice([3, 10, 40, 200]))
        labels = ((tokens(1), (20, 30)), (tokens(1), (20, 31)), ((40, 50, 60), (7,)))
        requests.append(Request(f"c/{i}/0", "choose", prompt, "", labels=labels))
        sentences = tuple(tokens(5) for _ in range(6))
        requests.append(Request(f"r/{i}/0", "rank", prompt, "", continuations=sentences))
        requests.append(Request(f"l/{i}/0", "likelihood", prompt, "", continuations=(tokens(1 + i), tokens(3))))
        requests.append(Request(f"g/{i}/0", "generate", prompt, "", max_tokens=rng.choice([1, 8, 20])))
    return requests


def naive(model: Any, request: Request) -> Answer:
    """The answer from one plain forward pass a sequence, without cache or batch."""

    def logprob(prompt: tuple[int, ...], tail: tuple[int, ...]) -> list[float]:
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + tail])).logits[0].float()
        rows = torch.log_softmax(logits[len(prompt) - 1 : -1], dim=-1)
        return rows.gather(1, torch.tensor(tail)[:, None])[:, 0].tolist()

    if request.kind == "choose":
        best = tuple(max(sum(logprob(request.prompt, s)) for s in label) for label in request.labels)
        return Answer(request.id, logprobs=best)
    if request.kind == "generate":
        ids = list(request.prompt)
        for _ in range(request.max_tokens):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        return Answer(request.id, tokens=tuple(ids[len(request.prompt) :]))
    values = [logprob(request.prompt, c) for c in request.continuations]
    mean = request.kind == "rank"
    return Answer(request.id, logprobs=tuple(sum(v) / (len(v) if mean else 1) for v in values))


def collect(engine: Engine, requests: list[Request], done: tuple[str, ...] = ()) -> dict[str, Answer]:
    found = [a for batch in engine.answers(requests, done) for a in batch]
    assert len({a.id for a in found}) == len(found)
    return {a.id: a for a in found}
