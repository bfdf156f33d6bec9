"""`recipes/template.yaml`: every key of a recipe with its default and what it means, made from the sections themselves.

python -m lep.pipeline.template     write it again after a setting was added
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from darumeru.files import write_text
from darumeru.options import option_of
from lep.calibration.recipe import RECIPES
from lep.initialisation import strategy
from lep.pipeline.recipe import SCHEMA, SHIPPED
from lep.pipeline.sections import Section, Top
from lep.pipeline.stages import STAGES
from lep.propagation import method

_HEAD = """\
# Every key of a recipe with what it means. Values are the defaults, except those that must be given (marked: yours).
# A line that begins with "# key:" is a key without a default value, or one of several ways; uncomment it to use it.
# Made by python -m lep.pipeline.template.
#
#     lep run my.yaml --output out --dry-run                        what would be done, what it costs, what is missing
#     lep run my.yaml --output out                                  do it; the same command resumes after a stop
#     lep run my.yaml --output out --set pretrain.max_steps=100     change a value without editing the file
#
# Paths are relative to this file (those given with --set, to where you are). Texts are .txt, .jsonl, .parquet (.gz, .zst) or
# hub:owner/name[:configuration[:split]].
"""
_YOURS: dict[str, Any] = {
    "name": "my-study",
    "base": "owner/base",
    "instruct": "owner/instruct",
    "corpus": ["texts/ru.jsonl.gz"],
    "held_out": {"ru": "texts/held-out-ru.jsonl", "en": "texts/held-out-en.jsonl"},
    "add": 24000,
    "keep": 64000,
    "count": 8000,
    "kind": "bpe",
    "size": 32000,
    "prompts": ["texts/prompts.jsonl"],
}
"""Examples of values that must be given."""
_EXPLAINED = {"strategy": strategy, "methods": method}
"""Keys whose values are explained one by one, and where these are found."""
_COLUMN, _WIDTH = 34, 128


def template() -> str:
    """Return the text of the template."""
    help = {stage.name: stage.help for stage in STAGES} | {"report": "What the report measures and shows."}
    lines = [*_HEAD.splitlines(), "", *_keys(Top, "")]
    for name, schema in SCHEMA.items():
        lines += ["", *_line(f"{name}:", help[name])]
        if not isinstance(schema, Mapping):
            lines += _keys(schema, "  ")
            continue
        one_of_several = name == "vocab"
        for number, (inner, section) in enumerate(schema.items()):
            off = "# " if one_of_several and number else ""
            lines += [f"  {off}{inner}:", *_keys(section, f"  {off}  ", off=bool(off))]
    return "\n".join(lines) + "\n"


def _keys(section: Section, indent: str, *, off: bool = False) -> Iterator[str]:
    """Lines of a section's keys; `off` where the section is commented out as a whole."""
    examples = RECIPES["self"].model_dump()
    for name, field in section.model_fields.items():
        option = option_of(field)
        required = field.is_required() or name in ("prompts", "instruct")  # which most recipes have
        default = _YOURS[name] if required else field.get_default(call_default_factory=True)
        hidden = default is None and not off
        help = f"yours: {option.help}" if required else option.help
        if option.default and default is None:
            help = f"{help} [{option.default}]"
        if choices := _choices(field.annotation):
            help = f"{help} One of {', '.join(choices)}.".lstrip()
        if name in _EXPLAINED:
            place = _EXPLAINED[name]
            yield from (f"{indent}#     {choice:<11} {place.find(choice).help}" for choice in place.names())
        text = _yaml(examples.get(name) if default is None else default)
        yield from _line(f"{indent}{'# ' if hidden else ''}{name}: {text}".rstrip(), help, indent)


def _choices(annotation: Any) -> list[str]:
    """Return what a key may be, where its type is a choice, or such a choice or None."""
    kinds = (annotation, *get_args(annotation))
    return next(([str(value) for value in get_args(kind)] for kind in kinds if get_origin(kind) is Literal), [])


def _line(text: str, help: str, indent: str = "") -> Iterator[str]:
    """A line with its comment beside it or, where that is too long, above it."""
    beside = f"{text:<{_COLUMN}} # {help}" if help else text
    if len(beside) <= _WIDTH:
        yield beside
        return
    yield from textwrap.wrap(help, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
    yield text


def _yaml(value: Any) -> str:
    import yaml

    if value is None:
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, allow_unicode=True, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


if __name__ == "__main__":
    write_text(SHIPPED / "template.yaml", template())
