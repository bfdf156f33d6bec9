"""The probe: a few texts whose log-probabilities tell whether two workers hold the same model and compute alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darumeru.requests import Answer, Request

_TEXTS = (
    "Москва — столица России. Она стоит на реке Москве, и живёт в ней больше двенадцати миллионов человек.",
    "Water boils at one hundred degrees Celsius at sea level, and it freezes at zero degrees.",
    "1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048",
)
_GIVEN, _MOST = 4, 32
"""Tokens of a text that are given, and the most of those behind them whose log-probability is asked."""

NOISE = {"float32": 1e-3}
"""By which the log-probability of a token may differ on average, by data type."""

NOISE_16_BITS = 0.05
"""The same in 16 bits, whose logits of about 20 are rounded to 0.06 (float16) or 0.12 (bfloat16)."""


def probe_of(tokenizer: Any) -> tuple[Request, ...]:
    """Return the requests of the probe in a tokenizer's ids."""
    found = []
    for number, text in enumerate(_TEXTS):
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        given = min(_GIVEN, len(ids) - 1)
        found.append(
            Request(f"probe/{number}", "likelihood", ids[:given], text, continuations=(ids[given : given + _MOST],))
        )
    return tuple(found)


def differing(probe: Sequence[Request], first: Sequence[Answer], other: Sequence[Answer], dtype: str) -> str | None:
    """Return in what two workers' answers to the probe differ beyond the noise of their data type; None if they agree."""
    noise = NOISE.get(dtype, NOISE_16_BITS)
    for request, a, b in zip(probe, first, other, strict=True):
        if a.error or b.error:
            return f"one could not answer: {a.error or b.error}"
        tokens = len(request.continuations[0])
        x, y = a.logprobs[0] / tokens, b.logprobs[0] / tokens
        if not abs(x - y) <= noise:  # NaN differs from everything
            return f"a token's mean log-probability is {y:.4f} in place of {x:.4f}"
    return None
