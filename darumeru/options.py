"""Command-line options, recipe sections and help, made from what is written once: the fields of a pydantic class, or the
parameters of a function, annotated as `Annotated[int, Option("New tokens to append.")]`.

    settings_model   a function's signature → a pydantic class, such as a section of a recipe
    with_options     a class or function → the options of a typer command
    validated        names and values → a class, or one sentence that says which value is impossible
    deciding         settings → those that decide the result
    yaml_template    a class or function → YAML to fill in
"""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from darumeru.errors import UserError, unknown

Asked = TypeVar("Asked", bound=BaseModel)
Source = type[BaseModel] | Callable[..., Any]
"""What options are made from: a pydantic class, or a function with annotated parameters."""
Many = Literal["repeat", "comma", "spread"]
"""How several values are given: the option again for each; that, or commas; that, or several values after one option."""


@dataclass(frozen=True)
class Option:
    """What is said of a setting, beside its type and default: metadata of `Annotated`.

    Attributes:
        help: one sentence, shown by --help and in templates.
        decides: the setting decides the result; False for what only says how or where it is computed.
        flag: the option's name where it is not that of the setting; a bool with a flag gets no --no-… .
        metavar: stands for the value in --help.
        many: how several values are given (sequences and mappings). "spread" needs `Command`.
        default: what a default of None means, in words.
    """

    help: str = ""
    decides: bool = True
    flag: str | None = None
    metavar: str | None = None
    many: Many = "repeat"
    default: str | None = None


class Strict(BaseModel):
    """Settings that cannot be changed; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -- classes ----------------------------------------------------------------------------------------------------------


def settings_model(
    name: str, function: Callable[..., Any], without: str | Iterable[str] = (), **more: Any
) -> type[Strict]:
    """Return the class whose fields are a function's parameters, with their defaults and `Annotated` metadata.

    Args:
        name: of the class.
        function: takes the fields' values as keyword arguments.
        without: parameters that are no fields: names, or one string with spaces between them.
        more: further fields, each (type, default); they replace parameters of the same name.
    """
    left_out = {*(without.split() if isinstance(without, str) else without), *more}
    parameters = {
        p.name: p
        for p in inspect.signature(function).parameters.values()
        if p.name not in left_out and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    # The types of parameters that are left out need not exist when the program runs.
    wanted = types.SimpleNamespace(__annotations__={p.name: p.annotation for p in parameters.values()})
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    hints = get_type_hints(wanted, globalns=namespace, include_extras=True)
    fields = {key: (hints[key], ... if p.default is p.empty else p.default) for key, p in parameters.items()}
    return _made(name, fields | more)


def validated(
    kind: type[Asked], values: Mapping[str, Any], named: Callable[[str], str] | None = None, what: str = "setting"
) -> Asked:
    """Return the settings of a class from their names and values.

    Args:
        kind: the class.
        values: by field.
        named: field → what the user knows it by. [its option]
        what: a field is called in the error for an unknown one.

    Raises:
        UserError: an unknown, missing or impossible setting; the message names it, its value and what is allowed.
    """
    for name in values:
        if name not in kind.model_fields:
            raise unknown(what, name, kind.model_fields)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else ""
        if not field:  # a rule between several fields
            raise UserError(f"{first['msg'].removeprefix('Value error, ').rstrip('.')}.") from None
        name = named(field) if named else _flag(field, kind.model_fields.get(field))
        if first["type"] == "missing":
            raise UserError(f"{name} is missing.") from None
        reason = first["msg"].removeprefix("Value error, ").rstrip(".")
        raise UserError(f"{name}: {first['input']!r} is not possible. {reason}.") from None


def deciding(settings: BaseModel) -> dict[str, Any]:
    """Return the settings that decide the result, by name, as JSON values."""
    fields = type(settings).model_fields
    return settings.model_dump(mode="json", include={n for n, f in fields.items() if option_of(f).decides})


def option_of(field: FieldInfo) -> Option:
    """Return what is said of a field; its `Option`, or one made from pydantic's description."""
    found = next((m for m in reversed(field.metadata) if isinstance(m, Option)), None)
    return found or Option(field.description or "")


def yaml_template(source: Source, *, without: str | Iterable[str] = (), indent: int = 0) -> str:
    """Return YAML to fill in: for each setting its description as a comment, its name and its default."""
    import yaml

    lines = []
    for name, field in _chosen(source, without).model_fields.items():
        option = option_of(field)
        if option.help:
            lines.append(f"# {option.help}")
        if field.is_required():
            lines.append(f"{name}:  # required")
            continue
        default = _plain(_default(field))
        text = yaml.safe_dump(default, allow_unicode=True, default_flow_style=True, width=10_000)
        note = f"  # {option.default}" if default is None and option.default else ""
        lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}{note}")
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


# -- options of a command ---------------------------------------------------------------------------------------------


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
    kind = _chosen(source, without, only, prefix, defaults or {})
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
    option, shape, flag = option_of(field), _Shape.of(field.annotation), _flag(name, field)
    if shape.kind is bool and option.flag is None:
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    metavar = option.metavar or shape.metavar
    if shape.many and option.many == "spread":
        metavar += "..."
    kind: Any = list[shape.kind] if shape.many else shape.kind  # type: ignore[name-defined]
    default: Any = inspect.Parameter.empty if field.is_required() else _default(field)
    shown: bool | str = option.default or True
    if shape.many and not field.is_required():
        shown = option.default or ", ".join(_pair(default, key) for key in default or ()) or False
        default = None  # not given: the class has the default
    if default is None:
        kind = kind | None
    made = typer.Option(flag, help=option.help, metavar=metavar if shape.kind is not bool else None, show_default=shown)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, made])


_METAVARS: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "FLOAT", bool: "", Path: "PATH"}


@dataclass(frozen=True)
class _Shape:
    """How an annotation is given on a command line."""

    kind: type
    """Of a single value: str, int, float, bool or Path."""
    many: bool = False
    pairs: bool = False
    free: bool = False
    """Of any type: the text is YAML, so 5 is a number and true a bool."""
    metavar: str = "TEXT"

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
            raise UserError(f"{_flag(name, field)} '{part}' is not of the form key=value.")
        key = key.strip()
        # Free values are keyword arguments of something.
        pairs[key.replace("-", "_") if shape.free else key] = _yaml(value) if shape.free else value
    return pairs


# -- small parts ------------------------------------------------------------------------------------------------------


def _chosen(
    source: Source,
    without: str | Iterable[str] = (),
    only: Iterable[str] = (),
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> type[Strict]:
    """Return the class of some of a source's settings, by their prefixed names.

    Raises:
        ValueError: `without`, `only` or `defaults` name what the source does not have.
    """
    left_out = {*(without.split() if isinstance(without, str) else without)}
    model = source if isinstance(source, type) and issubclass(source, BaseModel) else None
    known = model.model_fields if model else dict(inspect.signature(source).parameters)
    if wrong := {*left_out, *only, *(defaults or {})} - known.keys():
        raise ValueError(f"{getattr(source, '__name__', source)} has no setting {', '.join(sorted(wrong))}")
    if only:
        left_out |= known.keys() - set(only)
    fields = (model or settings_model("Options", source, left_out)).model_fields
    chosen = {}
    for name in fields.keys() - left_out:
        field = fields[name]
        default = (defaults or {}).get(name, ... if field.is_required() else _default(field))
        chosen[name] = (_annotated(field), Field(default, description=field.description))
    return _made("Options", {prefix + name: chosen[name] for name in fields if name in chosen})


def _made(name: str, fields: Mapping[str, Any]) -> type[Strict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `copy` may be a setting and is an old method of pydantic's
        made: type[Strict] = create_model(name, __base__=Strict, **fields)
    return made


def _annotated(field: FieldInfo) -> Any:
    annotation: Any = field.annotation
    for data in field.metadata:
        annotation = Annotated[annotation, data]
    return annotation


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _flag(name: str, field: FieldInfo | None) -> str:
    return (option_of(field).flag if field else None) or "--" + name.replace("_", "-")


def _pair(values: Any, key: Any) -> str:
    return f"{key}={values[key]}" if isinstance(values, Mapping) else str(key)


def _plain(value: Any) -> Any:
    """Return a value as YAML has it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
