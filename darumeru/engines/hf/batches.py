"""Requests that are computed together: those of about equal length, and those whose prompts begin alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from darumeru.requests import Request

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Padded tokens of a batch, by device."""

CPU_PREFILL_TOKENS = 512
"""Where nothing is generated, padded tokens of a batch on a CPU: larger ones only add padding (`benchmarks/engines.py`)."""

SHARED_TOKENS = 64
"""A common prefix of at least so many tokens is computed once for all prompts that have it."""


def batch_tokens_of(device: str, kind: str, most: int) -> int:
    """Return how many padded tokens a batch may have: `most`, or fewer where a CPU generates nothing."""
    return min(most, CPU_PREFILL_TOKENS) if device == "cpu" and kind != "generate" else most


def batches(requests: list[Request], cost: Callable[[Request], int], most: int) -> Iterator[list[Request]]:
    """Yield requests of about equal cost together, the costliest first.

    Args:
        requests: of one kind.
        cost: a request's tokens, with its answer.
        most: padded tokens that a batch may have.
    """
    batch: list[Request] = []
    for request in sorted(requests, key=lambda r: (-cost(r), r.max_tokens, r.id)):
        if batch and (cost(batch[0]) * (len(batch) + 1) > most or request.until != batch[0].until):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def shared_prefixes(requests: list[Request]) -> list[tuple[int, list[Request]]]:
    """Return requests whose prompts begin alike, with the length of that prefix; 0 for those that share too little.

    The prompts in lexicographic order: neighbours have the longest common prefixes. A group grows while it keeps at least
    half of its common prefix, and never takes a prompt's last token, which has to be computed anew for its logits.
    """
    groups: list[tuple[int, list[Request]]] = []
    alone: list[Request] = []
    group: list[Request] = []
    shared = 0

    def close() -> None:
        if len(group) > 1:
            groups.append((shared, group))
        else:
            alone.extend(group)

    for request in sorted(requests, key=lambda r: (r.packed, r.id)):
        limit = request.prompt_tokens - 1
        common = min(shared, limit, group[0].packed.common(request.packed)) if group else 0
        if group and common >= max(SHARED_TOKENS, shared // 2 if len(group) > 1 else 0):
            group.append(request)
            shared = common
        else:
            close()
            group, shared = [request], limit
    close()
    return [*groups, (0, alone)]
