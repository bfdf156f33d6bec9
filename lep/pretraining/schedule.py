"""Schedules: what is trained in which steps, such as `head:0.1,embeddings`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from darumeru.errors import UserError

TRAINABLE = ("embeddings", "head", "new-rows", "embeddings+ends", "all", "new-rows+lora", "embeddings+lora", "lora")
"""The parts of a model that can be trained: both matrices; the head alone; rows that the vocabulary added; both matrices
and the first and last layer; everything; LoRA on the layers, alone or beside rows or matrices."""


@dataclass(frozen=True)
class Part:
    """A part of a schedule: what is trained, from which step to which (exclusive)."""

    what: str
    start: int
    stop: int


def parse_schedule(text: str) -> list[tuple[str, float]]:
    """`head:0.1,embeddings` as [("head", 0.1), ("embeddings", 0.9)].

    Raises:
        UserError: an unknown name, or shares that do not fit.
    """
    parts: list[tuple[str, float]] = []
    named = text.split(",")
    left = 1.0
    for number, part in enumerate(named):
        what, colon, share = part.strip().partition(":")
        if what not in TRAINABLE:
            raise UserError(
                f"--train {what!r} is unknown; choose among {', '.join(TRAINABLE)}, or head:0.1,embeddings."
            )
        last = number == len(named) - 1
        if bool(colon) == last or (colon and not re.fullmatch(r"0?\.\d+", share)) or (colon and float(share) <= 0):
            raise UserError(
                f"--train {text!r} is no schedule: every part but the last has its share of the steps, "
                "such as head:0.1,embeddings."
            )
        parts.append((what, left if last else float(share)))
        left -= 0.0 if last else float(share)
        if left <= 1e-9 and not last:
            raise UserError(f"--train {text!r} leaves no steps for its last part.")
    return parts


def schedule(train: str, steps: int) -> list[Part]:
    """The parts of a schedule over so many steps; each has at least one.

    Raises:
        UserError: there are fewer steps than parts.
    """
    parts = parse_schedule(train)
    if steps < len(parts):
        raise UserError(f"--train {train!r} has {len(parts)} parts and the training {steps} steps. Give it more text.")
    result: list[Part] = []
    done = 0.0
    for number, (what, share) in enumerate(parts):
        done += share
        start = result[-1].stop if result else 0
        rest = len(parts) - number - 1
        stop = steps if not rest else min(max(round(done * steps), start + 1), steps - rest)
        result.append(Part(what, start, stop))
    return result
