"""A probe: one text that every server of a model must answer alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from darumeru.engines.api.abilities import PROBE, Abilities
from darumeru.engines.api.client import Refused
from darumeru.engines.api.reading import content, echo_rows, logprob
from darumeru.engines.api.served import ServedModel
from darumeru.errors import DarumeruError

TOLERANCE = 0.05
"""Mean difference of the log-probabilities of the probe's tokens, in nats, up to which two servers have one model.

Float32 servers of one model differ by about 1e-5, 16 bits on different devices by hundredths; other models by tenths and more."""

WRITTEN_TOKENS = 8
"""Tokens that a server writes that gives no log-probabilities: the texts must be equal."""


@dataclass(frozen=True)
class Said:
    """What a server says to the probe."""

    logprobs: tuple[float, ...] = ()
    """Of the probe's tokens but the first; empty where the server does not give them."""
    text: str = ""
    """What it writes behind the probe otherwise."""

    def difference(self, other: Said) -> str:
        """Return in words how two servers' answers differ; empty where one model may have given both."""
        if len(self.logprobs) != len(other.logprobs):
            return "only one of them gives log-probabilities"
        if not self.logprobs:
            return "" if self.text == other.text else f"one writes {other.text!r}, the other {self.text!r}"
        mean = sum(abs(a - b) for a, b in zip(self.logprobs, other.logprobs, strict=True)) / len(self.logprobs)
        return (
            "" if mean <= TOLERANCE else f"log-probabilities differ by {mean:.2g} on average, allowed are {TOLERANCE}"
        )


async def probe(served: ServedModel, able: Abilities, ids: list[int]) -> Said:
    """Return what a server says to the probe, whose tokens are `ids`.

    Raises:
        DarumeruError: it does not answer, or not as when it was tried out.
    """
    plain: dict[str, Any] = {"temperature": 0.0}
    if able.continuations == "prompt_logprobs":
        choice = await _choice(served, able, plain | {"prompt": ids, "prompt_logprobs": 0, "max_tokens": 1})
        rows: Any = choice.get("prompt_logprobs")
        try:
            values = [row[str(token)]["logprob"] for token, row in zip(ids[1:], rows[1:], strict=True)]
        except (KeyError, TypeError, ValueError):
            raise DarumeruError(
                f"The server at {served.base_url} does not give the log-probabilities of the probe any more."
            ) from None
        return Said(tuple(map(logprob, values)))
    if able.continuations == "echo":
        choice = await _choice(served, able, plain | {"prompt": ids, "echo": True, "logprobs": 1, "max_tokens": 0})
        return Said(tuple(value for value, _ in echo_rows(choice, len(ids), len(ids) - 1)))
    asked: dict[str, Any] = {"prompt": ids if able.prompts == "tokens" else PROBE}
    if able.prompts == "messages":
        asked = {"messages": [{"role": "user", "content": PROBE}]}
    return Said(text=content(await _choice(served, able, plain | asked | {able.limit: WRITTEN_TOKENS})))


async def _choice(served: ServedModel, able: Abilities, body: dict[str, Any]) -> dict[str, Any]:
    try:
        choice: dict[str, Any] = (await served.post(able.endpoint, body, patient=False))["choices"][0]
    except Refused as error:
        raise DarumeruError(
            f"The server at {served.base_url} refuses the probe ({error.status}): {error.said}"
        ) from None
    return choice
