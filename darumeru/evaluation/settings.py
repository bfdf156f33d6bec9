"""What a run is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from darumeru.errors import UserError

Asked = TypeVar("Asked", bound=BaseModel)


class Training(BaseModel):
    """Where in a training a model was taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1)
    """The training's name; it stands in the record as the model's."""
    step: int = Field(ge=0)
    """Optimizer steps."""
    tokens_seen: int | None = Field(default=None, ge=0)
    """Tokens trained on, where somebody counted."""


class Settings(BaseModel):
    """What a run is asked to do. Two runs with equal settings on equal model, data and code are one run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    revision: str | None = None
    suite: str = "darumeru"
    tasks: tuple[str, ...] = ()
    data: str = "hub"
    lock: Path | None = None
    engine: str = "auto"
    mode: Literal["auto", "instruct", "foundation"] = "auto"
    num_fewshot: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=1)
    seed: int = 0
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_prompt_len: int = Field(4096, ge=16)
    model_args: dict[str, Any] = {}
    wording: Path | None = None
    include_path: tuple[Path, ...] = ()
    trust_remote_code: bool = False
    adapter: Path | None = None
    exact: bool = False
    likelihood: bool = False
    corpus: Path | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    served_model: str | None = None
    approximate: bool = False
    tokenizer: Path | None = None
    """The tokenizer's folder, where the model's has none."""
    training: Training | None = None


def settings_of(**values: Any) -> Settings:
    """Settings from keyword arguments.

    Raises:
        UserError: an unknown or impossible setting.
    """
    return validated(Settings, values)


def validated(kind: type[Asked], values: Mapping[str, Any]) -> Asked:
    """Settings of a kind from their names and values.

    Raises:
        UserError: an unknown or impossible setting.
    """
    from pydantic import ValidationError

    from darumeru.errors import unknown

    for name in values:
        if name not in kind.model_fields:
            raise unknown("setting", name, kind.model_fields)
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option}: {first['input']!r} is not possible. {first['msg']}.") from None
