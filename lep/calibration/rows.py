"""Examples dealt into packed rows, so that an optimizer step sees a set number of examples and no padding."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from darumeru.errors import UserError

Step = list[list[int]]
"""The rows of one optimizer step; a row is the indices of its examples."""


def deal(
    lengths: Sequence[int], *, batch: int, epochs: float, max_length: int, seed: int, packed: bool = True
) -> list[Step]:
    """Deal examples into optimizer steps of `batch` examples and these into rows of at most `max_length` tokens.

    Every epoch has its own shuffle. All steps but the last have the same number of rows, the smallest with which each step
    fits; within a step the longest example goes first, always into the row that is shortest so far. Rows are as long as
    their examples, so uneven rows cost nothing.

    Args:
        lengths: tokens of each example.
        batch: examples of a step; the last one may have fewer.
        epochs: how often each example is seen.
        max_length: tokens of a row.
        seed: of the shuffles.
        packed: without, each row is one example.

    Raises:
        UserError: an example is longer than a row.
    """
    if max(lengths) > max_length:
        raise UserError(f"An example of {max(lengths)} tokens does not fit into a row of {max_length}.")
    total = max(1, round(epochs * len(lengths)))
    order: list[int] = []
    for epoch in range(-(-total // len(lengths))):
        shuffled = list(range(len(lengths)))
        random.Random(f"{seed}/{epoch}").shuffle(shuffled)
        order += shuffled
    steps = [order[start : min(start + batch, total)] for start in range(0, total, batch)]
    if not packed:
        return [[[index] for index in step] for step in steps]
    rows = max(-(-sum(lengths[i] for i in step) // max_length) for step in steps)
    while True:
        dealt = [_balance(step, lengths, min(rows, len(step))) for step in steps]
        if all(sum(lengths[i] for i in row) <= max_length for step in dealt for row in step):
            return dealt
        rows += 1


def filled_up(step: Step, processes: int) -> Step:
    """Return a step with empty rows at its end, so that each of the processes gets as many rows."""
    return [*step, *([] for _ in range(-len(step) % processes))]


def _balance(step: Sequence[int], lengths: Sequence[int], count: int) -> Step:
    rows: Step = [[] for _ in range(count)]
    heap = [(0, number) for number in range(count)]
    for index in sorted(step, key=lambda i: (-lengths[i], i)):
        filled, number = heapq.heappop(heap)
        rows[number].append(index)
        heapq.heappush(heap, (filled + lengths[index], number))
    return rows
