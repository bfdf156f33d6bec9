"""What an arena is asked to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from darumeru.options import Option
from darumeru.settings import (
    THINKING_BUDGET,
    ApiKeyEnv,
    Approximate,
    ChatTemplateArgs,
    Dtype,
    Engine,
    EngineSettings,
    ModelArgs,
    ThinkEnd,
    Thinking,
    ThinkingBudget,
    ThinkingSettings,
)

Lang = Literal["ru", "en"]


class ArenaSettings(ThinkingSettings, EngineSettings):
    """What an arena is asked to do. Two arenas with equal settings on equal models and prompts are one arena.

    The settings of the engine and of thinking are those of the models that answer; `seed`, `device`, `exact` and
    `trust_remote_code` hold for the judge too, the others have a twin `judge_…`.
    """

    models: Annotated[tuple[str, ...], Option("Models to compare, two or more.", metavar="MODEL")]
    prompts: Annotated[
        Path, Option("JSONL (prompt, messages, turns or instruction) or .txt, a prompt a line.", metavar="FILE")
    ]
    judge: Annotated[str, Option("Model that judges: any model, in any engine.", metavar="MODEL")]
    lang: Annotated[Lang, Option("Language of the judge's rubric.")] = "ru"
    limit: Annotated[int | None, Option("A seeded random sample of that many prompts.", default="all prompts")] = Field(
        None, ge=1
    )
    max_tokens: Annotated[int, Option("The most tokens of an answer.")] = Field(512, ge=1)
    revision: Annotated[
        tuple[str, ...],
        Option("Revision of a hub id: one for all models, or repeated, one for each.", default="the newest"),
    ] = ()
    base_url: Annotated[
        tuple[str, ...], Option("api: address of a server for all models, or repeated, one for each.", metavar="URL")
    ] = ()
    served_model: Annotated[
        tuple[str, ...],
        Option("api: the server's name for each model, repeated.", default="the last part of each", metavar="NAME"),
    ] = ()
    api_key_env: ApiKeyEnv = None
    approximate: Approximate = False
    judge_engine: Engine = "auto"
    judge_dtype: Dtype = "auto"
    judge_model_args: ModelArgs = {}
    judge_max_prompt_len: Annotated[
        int, Option("Longest prompt of the judge in tokens; longer pairs are not judged, and counted.")
    ] = Field(8192, ge=256)
    judge_revision: Annotated[str | None, Option("Revision of a hub id.", default="the newest")] = None
    judge_base_url: Annotated[str | None, Option("api: address of the judge's server.", metavar="URL")] = None
    judge_served_model: Annotated[
        str | None, Option("api: the server's name for the judge.", default="the last part of --judge", metavar="NAME")
    ] = None
    judge_api_key_env: ApiKeyEnv = None
    judge_approximate: Approximate = False
    judge_thinking: Thinking = "auto"
    judge_thinking_budget: ThinkingBudget = THINKING_BUDGET
    judge_think_end: ThinkEnd = None
    judge_chat_template_args: ChatTemplateArgs = {}
