"""Schemas of rows: the fields that a data set must have, and in which form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

_Text = Annotated[StrictStr, Field(min_length=1, pattern=r"\S")]


class RowSchema(BaseModel):
    """Fields that are not named are allowed: data sets carry more than the tasks use."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Turn(RowSchema):
    role: Literal["system", "user", "assistant", "bot"]
    content: _Text


class InstructedRow(RowSchema):
    """A row that brings its own conversation, a template over its inputs."""

    messages: Annotated[list[_Turn], Field(min_length=1)]
    inputs: dict[str, StrictStr | StrictInt | StrictFloat]
    outputs: StrictStr
    meta: dict[str, Any] = Field(default_factory=dict)


class _Segment(RowSchema):
    segment: _Text


class _MultiQ(InstructedRow):
    outputs: Annotated[list[_Segment], Field(min_length=1)]  # type: ignore[assignment]


class _UseMeta(RowSchema):
    id_task: Annotated[StrictStr, Field(pattern=r"^([1-9]|1\d|2[0-6]|8_[0-4])$")]
    variant: StrictInt | _Text
    type: Literal[
        "text",
        "matching",
        "multiple_choice_based_on_text",
        "multiple_choice_options_within_text",
        "multiple_choice_independent_options",
    ]
    max_points: Annotated[float, Field(gt=0)] | None = None


class _Use(InstructedRow):
    outputs: _Text
    meta: _UseMeta  # type: ignore[assignment]


class _RutieMeta(RowSchema):
    dialog_id: StrictInt | StrictStr
    question_id: StrictInt


class _Rutie(InstructedRow):
    meta: _RutieMeta  # type: ignore[assignment]


class _Mmlu(RowSchema):
    subject: _Text
    answer: Annotated[int, Field(ge=0, le=3)]
    question_ru: _Text | None = None
    question_en: _Text | None = None
    choices_ru: Annotated[list[StrictStr], Field(min_length=4, max_length=4)] | None = None
    choices_en: Annotated[list[StrictStr], Field(min_length=4, max_length=4)] | None = None


class _Rucola(RowSchema):
    sentence: _Text
    label: Literal[0, 1]


class _Treeway(RowSchema):
    src_sents: Annotated[list[_Text], Field(min_length=1)]
    summary_sents: Annotated[list[_Text], Field(min_length=1)]
    extractive_summary: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Gazeta(RowSchema):
    title: StrictStr
    text: _Text
    summary: _Text


SCHEMAS: dict[str, type[RowSchema]] = {
    "multiq": _MultiQ,
    "use": _Use,
    "rutie": _Rutie,
    "mmlu_nlpcoreteam": _Mmlu,
    "rucola": _Rucola,
    "daru_treeway_eval": _Treeway,
    "gazeta": _Gazeta,
}
"""Data set → schema; others are checked by their tasks only, and as `InstructedRow` where these take the rows' own messages."""
