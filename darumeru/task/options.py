"""Settings of a task: what its YAML says beyond lm-eval's keys, and what a wording file may replace."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """What a task's YAML may say under `metadata: darumeru:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: tuple[str, ...]
    """The metrics whose mean is the task's score."""
    fewshot_start: int = 0
    """The first row of the few-shot split that is used as an example."""
    fewshot_match: str | None = None
    """A field that an example must share with the question (the subject of an MMLU question)."""
    stratify: str | None = None
    """A field whose values are strata: macro-averaged over, and resampled one by one."""
    max_docs: int | None = None
    """Only the first documents are used."""
    until: tuple[str, ...] = ()
    """Texts that end an answer of a foundation model, in place of the blank line."""
    fraction: float = Field(1.0, gt=0, le=1)
    """A seeded sample of that share of the documents is used."""
    likelihood: bool = False
    """Ask for the likelihood of the gold answer in place of an answer."""


class Wording(BaseModel):
    """What a wording file may say of a task: an entry of a YAML mapping task → wording (`--wording FILE`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    doc_to_text: str | None = None
    """Jinja template of the user's turn over the row's fields (`{{inputs.premise}}`, `{{sentence}}`)."""
    doc_to_target: str | None = None
    """Jinja template of an example's answer."""
    gen_prefix: str | None = None
    """The beginning of the assistant's turn; empty for none."""
    doc_to_choice: list[str] | None = None
    """The labels that the model chooses among, in the order of the task's own."""
    description: str | None = None
    """A system turn."""
