"""What does it cost to draw tokens? Seconds a step of a batch on the hf engine: greedy, drawn, drawn from the most probable.

    python benchmarks/drawing.py --model DIR [--rows 16] [--tokens 32] [--device cpu]

On a CPU it is the process's time on one thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from darumeru.engines import EngineOptions, open_engine
from darumeru.requests import Request, Sampling

WAYS = {
    "greedy": None,
    "temperature 0.7": Sampling(0.7),
    "temperature 0.7, top_k 20": Sampling(0.7, top_k=20),
    "temperature 0.6, top_p 0.95, top_k 20": Sampling(0.6, top_p=0.95, top_k=20),
}


def seconds(generate: Callable[[], object], clock: Callable[[], float]) -> float:
    """The time of the fastest of three generations."""
    found = []
    for _ in range(3):
        began = clock()
        generate()
        found.append(clock() - began)
    return min(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    import torch
    from transformers import AutoTokenizer

    if args.device == "cpu":
        torch.set_num_threads(1)
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    prompt = tuple(tokenizer("The history of the city begins")["input_ids"])
    batch = [Request(f"t/{i}/0", "generate", prompt, "", max_tokens=args.tokens, seed=i) for i in range(args.rows)]
    # Without tokens that end an answer all rows go on to the last token.
    with open_engine("hf", args.model, tokenizer, frozenset(), EngineOptions(device=args.device)) as engine:
        for name, sampling in WAYS.items():
            rows = [replace(r, sampling=sampling) for r in batch]
            took = seconds(partial(engine.forward.generate, rows), clock)  # type: ignore[attr-defined]
            print(f"{name:<40}{1000 * took / args.tokens:8.1f} ms a step of {args.rows} rows")


if __name__ == "__main__":
    main()
