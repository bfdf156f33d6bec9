"""Options of a typer command, made from the settings of a class or function."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from darumeru.errors import UserError
from darumeru.options.settings import Source, chosen_model, default_of, flag_of, option_of, validated


class Command(TyperCommand):
    """A command whose options "spread" take several values after one flag, as in `--corpus a.txt b.txt`.

    Their metavar ends in "...". Give it to typer as `cls`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the flag before each further value, then parse as usual."""
        flags = {f for p in self.params if (p.metavar or "").endswith("...") for f in p.opts if f.startswith("-")}
        return super().parse_args(ctx, spread(args, flags))


def spread(args: Sequence[str], flags: AbstractSet[str]) -> list[str]:
    """Return arguments with each of `flags` repeated before every value that follows it."""
    result: list[str] = []
    flag: str | None = None
    given = False
    for n, argument in enumerate(args):
        if argument == "--":
            return result + list(args[n:])
        if argument.startswith("-") and argument != "-":
            flag, given = (argument if argument in flags else None), False
        elif flag is not None and given:
            result.append(flag)
        else:
            given = True
        result.append(argument)
    return result


def with_options(
    source: Source,
    *,
    without: str | Iterable[str] = (),
    only: Iterable[str] = (),
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
    into: str = "settings",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a typer command an option for each setting; use it below `@app.command()`.

    The command's parameter `into` is replaced by the options, and gets the dict of all settings, converted and checked. Its
    other parameters are typer's as usual. A Literal shows its choices; a sequence takes several values (`Option.many`); a
    mapping takes KEY=VALUE; a bool is --x/--no-x.

    Args:
        source: the class or function that has the settings.
        without: settings that get no option.
        only: the settings that get one. [all]
        prefix: before the names of options and in the keys of the dict, such as "judge_".
        defaults: in place of the source's.
        into: the parameter that gets the dict.
    """
    kind = chosen_model(source, without, only, prefix, defaults or {})
    fields = kind.model_fields

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name == into:
                # Those that must be given first.
                parameters += [
                    _parameter(k, fields[k]) for k in sorted(fields, key=lambda k: not fields[k].is_required())
                ]
            else:
                annotation = hints.get(parameter.name, parameter.annotation)
                parameters.append(parameter.replace(annotation=annotation, kind=parameter.KEYWORD_ONLY))

        @wraps(command)
        def wrapper(**given: Any) -> Any:
            raw = {key: given.pop(key) for key in fields if key in given}
            values = {key: _value(fields[key], key, value) for key, value in raw.items() if value is not None}
            checked = validated(kind, values)
            return command(**given, **{into: {key: getattr(checked, key) for key in fields}})

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    """Return a field as a parameter that typer makes an option of."""
    option, shape, flag = option_of(field), _Shape.of(field.annotation), flag_of(name, field)
    if shape.kind is bool and option.flag is None:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    metavar = option.metavar or shape.metavar
    if shape.many and option.many == "spread":
        metavar += "..."
    kind: Any = list[shape.kind] if shape.many else shape.kind  # type: ignore[name-defined]
    default: Any = inspect.Parameter.empty if field.is_required() else default_of(field)
    shown: bool | str = option.default or True
    if shape.many and not field.is_required():
        shown = option.default or ", ".join(_pair(default, key) for key in default or ()) or False
        default = None  # not given: the class has the default
    if default is None:
        kind = kind | None
    if default is False:
        shown = False  # --no-x says it
    made = typer.Option(flag, help=option.help, metavar=metavar if shape.kind is not bool else None, show_default=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


_METAVARS: dict[Any, str] = {str: "<str>", int: "<int>", float: "<float>", bool: "", Path: "<path>"}
"""As typer writes them for the options that a command adds itself."""


@dataclass(frozen=True)
class _Shape:
    """How an annotation is given on a command line."""

    kind: type
    """Of a single value: str, int, float, bool or Path."""
    many: bool = False
    pairs: bool = False
    free: bool = False
    """Of any type: the text is YAML, so 5 is a number and true a bool."""
    metavar: str = "<str>"

    @classmethod
    def of(cls, annotation: Any) -> _Shape:
        origin, inner = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return cls.of(inner[0])
        if origin in (Union, types.UnionType):
            shapes = {cls.of(part) for part in inner if part is not type(None)}
            if len(shapes) == 1:
                return shapes.pop()
            # A sequence or a single one: what the command line can say is the sequence.
            many = [s for s in shapes if s.many]
            return many[0] if many else cls(str)
        if origin is Literal:
            return cls(str, metavar=f"[{'|'.join(map(str, inner))}]")
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return cls(str, many=True, pairs=True, free=inner[1:] != (str,), metavar="KEY=VALUE")
        if isinstance(origin, type) and issubclass(origin, Iterable):
            return replace(cls.of(inner[0]), many=True)
        if annotation in _METAVARS:
            return cls(annotation, metavar=_METAVARS[annotation])
        return cls(str, free=True)


def _value(field: FieldInfo, name: str, given: Any) -> Any:
    """Return what was given on the command line as pydantic wants it."""
    option, shape = option_of(field), _Shape.of(field.annotation)
    if not shape.many:
        return _yaml(given) if shape.free and isinstance(given, str) else given
    parts = [given] if isinstance(given, str | Path) else list(given)
    if option.many == "comma":
        parts = [p.strip() for part in parts for p in str(part).split(",") if p.strip()]
    if not shape.pairs:
        return tuple(parts)
    pairs = {}
    for part in parts:
        key, equals, value = str(part).partition("=")
        if not equals or not key:
            raise UserError(f"{flag_of(name, field)} '{part}' is not of the form key=value.")
        key = key.strip()
        # Free values are keyword arguments of something.
        pairs[key.replace("-", "_") if shape.free else key] = _yaml(value) if shape.free else value
    return pairs


def _pair(values: Any, key: Any) -> str:
    return f"{key}={values[key]}" if isinstance(values, Mapping) else str(key)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
