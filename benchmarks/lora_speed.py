"""Speed of `--train new-rows+lora`: steps of `lep pretrain`'s model against a plain loop with PEFT, tokens per CPU second.

    python benchmarks/lora_speed.py --model DIR [--new 4000] [--steps 4] [--rows 8] [--tokens 96] [--attention eager]

DIR holds SmolLM2-135M-Instruct or another small model; its last `--new` rows are taken for the new ones. The plain loop is what
a user would write: `get_peft_model`, the embedding trained whole with the old rows' gradient set to zero, and transformers'
own loss over whole logits. Steps of both take turns, and CPU time is counted, so that other work on the machine disturbs
little. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from lep.model.checkpoint import open_checkpoint
from lep.model.layers import linear_layers
from lep.pretraining.adapter import Lora
from lep.pretraining.row_adamw import RowAdamW, UsedRows
from lep.pretraining.trainable import prepare

Step = Callable[[torch.Tensor, torch.Tensor], float]


def load(folder: Path, attention: str) -> Any:
    """The model in bfloat16."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation=attention).train()


def finish_step(loss: torch.Tensor, trained: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> float:
    """What both do when they have a loss; returns it."""
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def plain_step(folder: Path, new: int, attention: str) -> Step:
    """A plain loop."""
    model = load(folder, attention)
    wrapped = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=linear_layers(model, "all")))
    embedding = model.get_input_embeddings().weight
    embedding.requires_grad_(True)

    def only_new(gradient: torch.Tensor) -> torch.Tensor:
        gradient[: len(gradient) - new] = 0
        return gradient

    embedding.register_hook(only_new)
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step(ids: torch.Tensor, positions: torch.Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16):
            loss = wrapped(input_ids=ids, labels=ids, position_ids=positions).loss
        return finish_step(loss, trained, optimizer)

    return step


def lep_step(folder: Path, new: int, attention: str) -> Step:
    """The model of `lep pretrain`."""
    model, source = load(folder, attention), open_checkpoint(folder)
    rows = source.embeddings.rows
    ready = prepare(
        model, "new-rows+lora", source, new_ids=range(rows - new, rows), compute=torch.bfloat16, lora=Lora()
    )
    trained = list(ready.parameters.values())
    groups = [{"params": trained, "lr": 1e-4, "weight_decay": 0.1, "row_decay": 0.0}]
    optimizer = RowAdamW(groups, UsedRows(rows, torch.device("cpu"), ready.rows), fused=True)
    optimizer.register_step_post_hook(lambda *_: ready.follow())

    def step(ids: torch.Tensor, positions: torch.Tensor) -> float:
        with ready.autocast():
            loss = model(input_ids=ids, labels=ids, position_ids=positions).loss
        return finish_step(loss, trained, optimizer)

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    for name, default in (("new", 4000), ("steps", 4), ("rows", 8), ("tokens", 96), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--attention", default="sdpa")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    count = open_checkpoint(given.model).embeddings.rows
    ways = {
        name: make(given.model, given.new, given.attention) for name, make in (("plain", plain_step), ("lep", lep_step))
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    positions = torch.arange(given.tokens).repeat(given.rows, 1)
    draw = torch.Generator().manual_seed(0)
    for number in range(given.steps + 1):
        ids = torch.randint(0, count, (given.rows, given.tokens), generator=draw)
        for name, step in ways.items():
            began = time.process_time()
            step(ids, positions)
            if number:  # the first one warms up
                spent[name].append(time.process_time() - began)
    for name, seconds in spent.items():
        print(f"{name}: {given.rows * given.tokens / statistics.median(seconds):,.0f} tokens per CPU second")


if __name__ == "__main__":
    main()
