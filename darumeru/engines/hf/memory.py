"""Memory: how many tokens a batch may hold, out of what is free, and what is learned when it was too many."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Padded tokens that a pass computes at most, by device: larger ones are no faster."""

EXACT_TOKENS = {"cpu": 4096, "cuda": 32768}
"""The same where numbers have to repeat bit by bit, whatever is free."""

CPU_PREFILL_TOKENS = 512
"""Where nothing is generated, padded tokens of a batch on a CPU: larger ones only add padding (`benchmarks/engines.py`)."""

SHARE = 0.5
"""Of the free memory, what a batch may take: activations of odd shapes, logits and the allocator's gaps need the rest."""


@dataclass
class Budget:
    """How large batches may be, in tokens with their padding; `held` shrinks when memory runs out.

    Args:
        generated: what a batch of generations computes at most.
        scored: what a batch of any other kind computes at most.
        held: what a batch keeps in its cache at most; a prefix that its rows share counts once for every row.
    """

    generated: int
    scored: int
    held: int

    def rows(self, width: int, shared: int = 0, *, generates: bool = False) -> int:
        """Return how many rows of `width` tokens behind `shared` ones fit; one always does."""
        most = self.generated if generates else self.scored
        return max(1, min(most // width, self.held // (shared + width)))

    def failed(self, rows: int, width: int) -> None:
        """Learn that memory ran out on so many rows of `width` tokens, shared ones included: half as many from now on."""
        self.held = rows * width // 2


def budget_of(model: Any, device: torch.device, asked: int | None, *, exact: bool = False) -> Budget:
    """Return how large batches may be on a device, out of the memory that is free there.

    Args:
        model: the loaded model.
        device: where it computes.
        asked: tokens of a batch that the user wants; None: the usual ones.
        exact: whether batches may not depend on the free memory.
    """
    kind = device.type if device.type in BATCH_TOKENS else "cpu"
    usual = EXACT_TOKENS[kind] if exact else BATCH_TOKENS[kind]
    held = 4 * usual if exact else int(SHARE * free_bytes(device) / token_bytes(model))
    most = asked or (usual if exact else min(usual, max(1, held)))
    return Budget(most, min(most, CPU_PREFILL_TOKENS) if kind == "cpu" else most, max(held, most if asked else 1))


def free_bytes(device: torch.device) -> int:
    """Return the bytes that are free on a device: on a GPU with those that PyTorch keeps, on a CPU without swapping.

    Where the system does not tell (macOS), half of the machine's memory stands for it.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def token_bytes(model: Any) -> int:
    """Return about how many bytes a token of a batch takes: keys and values of all layers, activations of one.

    The activations are those of a block without fused kernels: six of the hidden size and three of the inner one in the
    model's type, four of the hidden size in float32 (norms, residuals).
    """
    config = model.config.get_text_config(decoder=True)
    size = int(model.dtype.itemsize)
    hidden = int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    width = int(getattr(config, "head_dim", None) or hidden // heads)
    kept = int(getattr(config, "num_key_value_heads", None) or heads)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    inner = max(inner) if isinstance(inner, list | tuple) else int(inner)
    cache: int = 2 * int(config.num_hidden_layers) * kept * width * size
    return cache + (6 * hidden + 3 * inner) * size + 16 * hidden


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out: PyTorch has a type for its own GPU allocator only."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError)
        and any(
            sign in text for sign in ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
        )
    )
