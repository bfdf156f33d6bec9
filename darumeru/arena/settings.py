"""What an arena is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darumeru.arena.judge import Lang

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class ArenaSettings(BaseModel):
    """What an arena is asked to do. Two arenas with equal settings on equal models and prompts are one arena."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: tuple[str, ...]
    prompts: Path
    judge: str
    lang: Lang = "ru"
    limit: int | None = Field(None, ge=1)
    seed: int = 0
    max_tokens: int = Field(512, ge=1)
    max_prompt_len: int = Field(4096, ge=16)
    engine: str = "auto"
    dtype: Dtype = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the models and of the judge, where they are not behind a server."""
    model_args: dict[str, Any] = {}
    base_url: tuple[str, ...] = ()
    """One server for all models, or one for each."""
    served_model: tuple[str, ...] = ()
    """A name for each model."""
    api_key_env: str | None = None
    approximate: bool = False
    judge_engine: str = "auto"
    judge_dtype: Dtype = "auto"
    judge_model_args: dict[str, Any] = {}
    judge_base_url: str | None = None
    judge_served_model: str | None = None
    judge_api_key_env: str | None = None
    judge_approximate: bool = False
    judge_max_prompt_len: int = Field(8192, ge=256)
    trust_remote_code: bool = False
    exact: bool = False
