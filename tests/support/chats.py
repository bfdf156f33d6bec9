"""Conversations for calibration's training, and what of them is learned."""

from pathlib import Path

import numpy as np
import transformers

from darumeru.inference.prompt import Limits, Prompter
from lep.calibration.chat import Example, Writers, render

BY_TURNS = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
)
"""How Gemma's, Mistral's and Llama 2's templates begin."""


def chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if n % 2 else "user", "content": turn} for n, turn in enumerate(turns)]


def prompter_of(folder: Path) -> Prompter:
    return Prompter(transformers.AutoTokenizer.from_pretrained(folder), "instruct", Limits(64))


def rendered(
    folder: Path, messages: list[dict[str, str]], ends: frozenset[int], max_length: int = 500
) -> Example | str:
    """The one example that a conversation becomes, or why it is left out."""
    [found] = render(Writers.of(transformers.AutoTokenizer.from_pretrained(folder), 64), messages, ends, max_length)
    return found


def learned(prompter: Prompter, example: Example) -> list[str]:
    """The stretches of text that the loss counts."""
    found: list[list[int]] = []
    for index in np.flatnonzero(example.trained):
        if index == 0 or not example.trained[index - 1]:
            found.append([])
        found[-1].append(int(example.ids[index]))
    return [prompter.tokenizer.decode(ids) for ids in found]
