"""The figures of a training, read from the Trainer's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

KERNEL = "cross_entropy"
"""The log's key for what computes the loss."""


def measures_of(log: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures in a Trainer's `log_history`.

    Last loss, tokens, speed, memory, what computed the loss, held-out measures before and after.
    """
    result: dict[str, Any] = {}
    losses = [entry for entry in log if "loss" in entry]
    if losses:
        last = losses[-1]
        result = {"loss": last["loss"], "tokens": last["num_input_tokens_seen"]}
        speeds = sorted(entry["tokens_per_second"] for entry in losses if "tokens_per_second" in entry)
        if speeds:
            result["tokens_per_second"] = round(speeds[len(speeds) // 2], 1)
        if "seconds" in last:
            result["seconds"] = last["seconds"]
        result["peak_memory_gb"] = round(max(entry["memory_gb"] for entry in losses), 3)
    if kernels := list(dict.fromkeys(entry[KERNEL] for entry in log if KERNEL in entry)):
        result[KERNEL] = kernels
    evaluations = [entry for entry in log if any(key.startswith("eval_bits_per_byte") for key in entry)]
    for key in evaluations[0] if evaluations else ():
        if key.startswith("eval_"):
            result[key.removeprefix("eval_")] = {"before": evaluations[0][key], "after": evaluations[-1][key]}
    return result
