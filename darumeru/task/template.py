"""Templates of prompts: Jinja in a sandbox for a task's YAML and wordings, plain `{names}` for the rows' own messages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import Formatter
from typing import Any

import jinja2
import jinja2.sandbox

_JINJA = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a Jinja template filled in, in a sandbox: a template of a wording file may come from anywhere.

    Raises:
        jinja2.UndefinedError: a name has no value.
        jinja2.exceptions.SecurityError: it asks for what the sandbox forbids.
    """
    return compiled(template).render(values)


@lru_cache(maxsize=256)
def compiled(text: str) -> jinja2.Template:
    """Return a template ready to be filled in.

    Raises:
        jinja2.TemplateSyntaxError: it is no template.
    """
    return _JINJA.from_string(text)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Return `str.format` over plain `{names}` only: data must not reach attributes or items of objects.

    Raises:
        KeyError: a name has no value.
        ValueError: the template is malformed or asks for more than a name.
    """
    parts = []
    for literal, name, spec, conversion in Formatter().parse(template):
        parts.append(literal)
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"'{{{name}}}' is not a plain name")
        parts.append(str(values[name]))
    return "".join(parts)


def speaker(role: str) -> str:
    """Return the role of a row's turn as chat templates know it; data sets say `bot` for `assistant`.

    Raises:
        ValueError: an unknown role.
    """
    if role not in ("system", "user", "assistant", "bot"):
        raise ValueError(f"field 'messages': unknown role '{role}', allowed are system, user, assistant, bot")
    return "assistant" if role == "bot" else role
