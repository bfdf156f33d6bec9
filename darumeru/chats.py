"""A tokenizer's chat template: which of several is used, the text of a conversation, and the date that it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from darumeru.errors import UserError

TEMPLATE_DATE = date(2024, 7, 26)
"""What a template is told that writes today's date into its prompts: the same prompts tomorrow. Llama's templates write this
one where they are told none."""


def template_of(tokenizer: Any) -> str | None:
    """Return the template that is used without a name; None where the tokenizer has none.

    Raises:
        UserError: it has several, and none that is meant for a plain conversation.
    """
    found = tokenizer.chat_template
    if not isinstance(found, dict):
        return found or None
    if "default" in found or not found:
        return found.get("default")
    raise UserError(
        f"The tokenizer has chat templates of the names {', '.join(sorted(found))}, and none named 'default', which is the one "
        "that would be used. Save one of them as chat_template.jinja in the model's folder, or use --mode foundation."
    )


def writes_date(tokenizer: Any) -> bool:
    """Return whether its template asks for today's date."""
    return "strftime_now" in (template_of(tokenizer) or "")


def chat_text(tokenizer: Any, turns: Sequence[Mapping[str, Any]], **args: Any) -> str:
    """Return the text of a conversation; a template that asks for today's date is told `TEMPLATE_DATE`.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        turns: the conversation.
        args: see `apply_chat_template`; what it does not know is the template's.
    """
    if writes_date(tokenizer):
        args["strftime_now"] = TEMPLATE_DATE.strftime
    text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, **args)
    return text
