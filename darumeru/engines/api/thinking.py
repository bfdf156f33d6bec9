"""The answer of a chat server whose model thinks: the thought and what stands behind it, from one call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from darumeru.engines.api.reading import content, generated_ids, reasoning
from darumeru.engines.base import finish
from darumeru.requests import Answer, PackedTokens, Request, Thinking, thinking_tokens, unfinished, with_thought


@dataclass(frozen=True)
class Thoughts:
    """Reads thoughts out of answers.

    Attributes:
        tokenizer: the model's.
        eos_ids: the tokens that end an answer.
        opening: the tokens that open a thought, where the server's prompts leave them to the model.
    """

    tokenizer: Any
    eos_ids: frozenset[int]
    opening: tuple[int, ...]

    def most_tokens(self, request: Request) -> int:
        """Return the most tokens that a thought takes, with what opens and follows it; 0 for a request without."""
        return len(self.opening) + thinking_tokens(request) if request.thinking else 0

    def read(self, request: Request, choice: dict[str, Any], exact: bool) -> Answer:
        """Return the answer to a request that is thought about.

        Where the server tells the tokens, the thought ends with its token among them, as it does everywhere; else tokens are
        made of its texts. A thought that did not end within its budget, and reasoning without an answer, is an unfinished one.

        Args:
            request: with its thinking.
            choice: what the server said.
            exact: whether it saw our prompt.
        """
        thinking = request.thinking
        assert thinking is not None  # noqa: S101 - the caller asks for thoughts only
        known = generated_ids(choice)
        ids = self._ids_of(choice, thinking) if known is None else known
        opened = ids[: len(self.opening)] == list(self.opening)
        ids = ids[len(self.opening) :] if opened else ids
        exact = exact and opened and known is not None
        within = ids[: thinking.budget]
        if thinking.end in within:
            place = within.index(thinking.end) + 1
        elif opened or reasoning(choice) or not content(choice).strip():
            thought = [t for t in within if t not in self.eos_ids]
            return replace(with_thought(unfinished(request), thought, self.tokenizer), approximate=not exact)
        else:
            place, exact = 0, False  # it answered at once
        rest = ids[place:]
        written = PackedTokens.of(rest).common(PackedTokens.of(thinking.resume))
        exact = exact and written == len(thinking.resume)
        answer = finish(request, rest[written:][: request.max_tokens], self.eos_ids, self.tokenizer)
        return replace(with_thought(answer, ids[:place], self.tokenizer), approximate=not exact)

    def _ids_of(self, choice: dict[str, Any], thinking: Thinking) -> list[int]:
        """Return tokens of the server's texts; it tells the thought apart, or does not."""
        thought, text = reasoning(choice), content(choice)
        ids = self._encode(text)
        if thought:
            ids = [*self.opening, *self._encode(thought), *([thinking.end, *ids] if text.strip() else [])]
        ended = choice.get("finish_reason") != "length"
        return ids + sorted(self.eos_ids)[:1] if ended else ids

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
