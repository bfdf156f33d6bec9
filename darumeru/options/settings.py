"""Settings classes: described once, made from signatures, checked with one sentence, written as a template."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

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
        name = named(field) if named else flag_of(field, kind.model_fields.get(field))
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


def default_of(field: FieldInfo) -> Any:
    """Return the default of a field that has one."""
    return field.get_default(call_default_factory=True)


def flag_of(name: str, field: FieldInfo | None) -> str:
    """Return the name of a setting on the command line, such as --max-steps."""
    return (option_of(field).flag if field else None) or "--" + name.replace("_", "-")


def chosen_model(
    source: Source,
    without: str | Iterable[str] = (),
    only: Iterable[str] = (),
    prefix: str = "",
    defaults: Mapping[str, Any] | None = None,
) -> type[Strict]:
    """Return the class of some of a source's settings.

    Args:
        source: the class or function that has the settings.
        without: settings to leave out.
        only: settings to keep. [all]
        prefix: before the names in the new class.
        defaults: in place of the source's.

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
    kept = {}
    for name in fields.keys() - left_out:
        field = fields[name]
        default = (defaults or {}).get(name, ... if field.is_required() else default_of(field))
        kept[name] = (_annotated(field, prefix.replace("_", "-")), Field(default, description=field.description))
    return _made("Options", {prefix + name: kept[name] for name in fields if name in kept})


def yaml_template(source: Source, *, without: str | Iterable[str] = (), indent: int = 0) -> str:
    """Return YAML to fill in: for each setting its description as a comment, its name and its default."""
    import yaml

    lines = []
    for name, field in chosen_model(source, without).model_fields.items():
        option = option_of(field)
        if option.help:
            lines.append(f"# {option.help}")
        if field.is_required():
            lines.append(f"{name}:  # required")
            continue
        default = _plain(default_of(field))
        text = yaml.safe_dump(default, allow_unicode=True, default_flow_style=True, width=10_000)
        note = f"  # {option.default}" if default is None and option.default else ""
        lines.append(f"{name}: {text.removesuffix('...' + chr(10)).strip()}{note}")
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def _made(name: str, fields: Mapping[str, Any]) -> type[Strict]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `copy` may be a setting and is an old method of pydantic's
        made: type[Strict] = create_model(name, __base__=Strict, **fields)
    return made


def _annotated(field: FieldInfo, prefix: str) -> Any:
    """Return a field's type with its metadata; a flag of its own gets the prefix too."""
    annotation: Any = field.annotation
    for data in field.metadata:
        if isinstance(data, Option) and data.flag:
            data = replace(data, flag=f"--{prefix}{data.flag.removeprefix('--')}")
        annotation = Annotated[annotation, data]
    return annotation


def _plain(value: Any) -> Any:
    """Return a value as YAML has it."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
