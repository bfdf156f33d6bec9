"""The recipe: one YAML file that says how a base model and its instruct variant get a new vocabulary.

A stage's keys are the parameters of the function that runs it, with the function's defaults: there is no second list of
them. What the pipeline knows itself (models, outputs, corpus) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from darumeru.errors import UserError, unknown
from darumeru.files import parse_yaml
from lep.pipeline.sections import Schema, Shown, Top, checked
from lep.pipeline.sections import inside as section_of
from lep.pipeline.stage import Recipe, exists, inherited
from lep.pipeline.stages import STAGES, instruct

SHIPPED = next(
    (f for f in (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "recipes") if f.is_dir()),
    Path("recipes"),
)
"""The recipes that come with lep: inside the package in a wheel, beside it in a checkout."""

SCHEMA: dict[str, Schema] = {
    **{stage.name: stage.schema for stage in STAGES if stage.name not in Top.model_fields},
    "report": Shown,
}
"""Section → its keys; a mapping has sections inside."""

_PATHS = {"base", "instruct", "corpus", "held_out"}.union(*(stage.paths for stage in STAGES))
"""Keys that name files or folders; in a recipe they are relative to its own folder."""


def load_recipe(file: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with changes such as `pretrain.max_steps=10`; values are YAML, paths in them relative to here.

    Args:
        file: the YAML file, or the name of a recipe that comes with lep.
        changes: `KEY=VALUE`, keys with dots.

    Raises:
        UserError: no such file, no YAML, an unknown key (the nearest is named), a value that is not possible.
    """
    return recipe_of(read_content(_find(file), changes))


def read_content(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """Return the keys and values of a file with changes, unchecked; paths are absolute. Arguments as in `load_recipe`.

    Raises:
        UserError: no YAML, no mapping, a change that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error}).") from None
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is no recipe: it must be a mapping of keys to values. See recipes/template.yaml.")
    content = absolute(content, path.resolve().parent)
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or not key:
            raise UserError(f"--set {change!r} is not of the form KEY=VALUE, such as pretrain.max_steps=100.")
        put(content, key.strip().split("."), parse_yaml(text, f"--set {key}"), Path.cwd())
    return content


def _find(file: str | Path) -> Path:
    path = Path(file)
    if path.is_file():
        return path
    shipped = SHIPPED / f"{file}.yaml"
    if Path(file).name == str(file) and shipped.is_file():
        return shipped
    names = ", ".join(sorted(found.stem for found in SHIPPED.glob("*.yaml")))
    raise UserError(f"There is no recipe {file}. Name a YAML file, or one of those that come with lep: {names}.")


def put(content: dict[str, Any], keys: Sequence[str], value: Any, folder: Path) -> None:
    """Set a value under dotted keys; paths in it are relative to `folder`."""
    *outer, last = keys
    for key in outer:
        inner = content.get(key)
        if not isinstance(inner, dict):
            inner = content[key] = {}
        content = inner
    if _takes_several(keys) and isinstance(value, str):
        value = [value]
    content[last] = absolute({last: value}, folder, inside=outer[-1:] == ["held_out"])[last]


def absolute(values: Mapping[str, Any], folder: Path, *, inside: bool = False) -> dict[str, Any]:
    """The values with paths that exist under `folder` made absolute; all others (hub ids, names) as they are."""

    def resolved(value: Any) -> Any:
        if isinstance(value, str) and value and exists(folder / value):
            return str((folder / value).resolve())
        if isinstance(value, str) and "=" in value:  # FILE=SHARE
            file, _, share = value.rpartition("=")
            return f"{resolved(file)}={share}"
        return [resolved(item) for item in value] if isinstance(value, list) else value

    return {
        key: absolute(value, folder, inside=key == "held_out")
        if isinstance(value, dict)
        else resolved(value)
        if inside or key in _PATHS
        else value
        for key, value in values.items()
    }


def _takes_several(keys: Sequence[str]) -> bool:
    """Return whether the value of dotted keys is a sequence, so that a single value given for it is its only one."""
    place: Any = Top if len(keys) == 1 else {**SCHEMA, instruct.name: instruct.schema}.get(keys[0])
    for key in keys[1:-1]:
        place = place.get(key) if isinstance(place, Mapping) else None
    field = place.model_fields.get(keys[-1]) if isinstance(place, type) and issubclass(place, BaseModel) else None
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    return any(get_origin(kind) in (tuple, Sequence) for kind in kinds)


def recipe_of(content: Mapping[str, Any]) -> Recipe:
    """Return the recipe with these keys and values.

    Raises:
        UserError: an unknown or missing key, a value that is not possible.
    """
    for key in content:
        if key not in {*Top.model_fields, *SCHEMA}:
            raise unknown("key", str(key), {*Top.model_fields, *SCHEMA})
    general = {key: content[key] for key in Top.model_fields if key in content}
    if isinstance(general.get(instruct.name), dict):
        general[instruct.name] = "made from the base"
    top = Top(**checked(Top, general, ""))
    settings = {stage.name: stage.read(content, top) for stage in STAGES}
    return Recipe(top, settings, Shown(**checked(Shown, section_of(content, "report"), "report", inherited(top))))
