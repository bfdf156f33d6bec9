"""Drawing tokens: each row of a batch with a seed of its own, so that its tokens depend neither on batch nor on order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from darumeru.requests import Request, Sampling


class GumbelNoise(LogitsProcessor):  # type: ignore[misc]
    """Add to every logit a Gumbel variable, -log of an exponential one: the greatest sum is then a draw from the softmax.

    (Gumbel 1954.) Rounding that differs between batches changes a draw about as rarely as it changes the most probable token;
    a place in the cumulative probabilities would move with all tokens before it. Position n of a row gets the n-th numbers
    of the row's own generator, as many as the vocabulary has.

    Args:
        seeds: of the rows.
        device: on which the logits lie; devices have different generators.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some of the rows."""
        self._generators = [self._generators[row] for row in rows]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits (rows, vocabulary) with noise."""
        noise = torch.empty_like(scores)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores - noise.log_()


def processors(batch: Sequence[Request], device: torch.device) -> LogitsProcessorList:
    """Return what makes greedy generation draw tokens, as the requests of a batch have it; nothing for greedy answers.

    The settings apply in vLLM's order: both engines draw from one distribution.

    Args:
        batch: requests with equal `sampling`.
        device: on which the logits lie.
    """
    sampling: Sampling | None = batch[0].sampling
    if sampling is None:
        return LogitsProcessorList()
    found = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.min_p > 0:
        found.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k > 0:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(TopPLogitsWarper(sampling.top_p))
    found.append(GumbelNoise([request.seed for request in batch], device))
    return found


def keep_rows(found: LogitsProcessorList, rows: Sequence[int]) -> None:
    """Have processors go on with some rows of their batch."""
    for processor in found:
        if isinstance(processor, GumbelNoise):
            processor.keep(rows)
