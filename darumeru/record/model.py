"""What the kinds of a record have in common: strict models that give back, key for key, what they were read from."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from darumeru.errors import UserError

Kind = TypeVar("Kind", bound="Part")


def _plain(name: str) -> str:
    if PurePosixPath(name).name != name or name in ("", "..") or "\0" in name:
        raise ValueError(f"the name {name!r} is a path")
    return name


FileName = Annotated[str, AfterValidator(_plain)]
"""A name that is part of a file's name: a record from elsewhere must not reach out of its folder."""


class Part(BaseModel):
    """A JSON object of a record. An unknown key is refused; keys that it was not given are not written.

    The fields are attributes; for notebooks the keys of the JSON work as well: `run.scores["suite"]["value"]`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object with the keys that were read or set, in the order of the fields."""
        return self.model_dump(exclude_unset=True)

    def __getitem__(self, key: str) -> Any:
        if key not in type(self).model_fields:
            raise KeyError(key)
        return getattr(self, key)

    def __contains__(self, key: str) -> bool:
        return key in self.model_fields_set

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field by its key, or the default where the record does not state it."""
        return getattr(self, key) if key in self.model_fields_set else default


def parse(kind: type[Kind], value: Any, where: str) -> Kind:
    """Return a part of a record from what its JSON holds.

    Args:
        kind: of part.
        value: the JSON value.
        where: file (and line), for the message.

    Raises:
        UserError: a key is unknown, missing or of the wrong type.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise fault(error, where) from None


def fault(error: ValidationError, where: str) -> UserError:
    """Return the sentence for a part that is not as it must be: a newer version's key, or a fault."""
    first = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return UserError(
            f"{where} has the key '{key}', which this version of Darumeru does not know: a newer version wrote it. "
            "Update Darumeru, or use the version that wrote it."
        )
    return UserError(f"The record is not as a run writes it: {where}{f', {key}' if key else ''}: {first['msg']}.")
