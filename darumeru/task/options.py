"""Settings of a task: the keys of its YAML that lm-eval does not have, and overrides of its prompt template."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Keys of a task's YAML under `metadata: darumeru:`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    primary: tuple[str, ...]
    """The metrics whose mean is the task's score."""
    fewshot_start: int = 0
    """The first row of the few-shot split that is used as an example."""
    fewshot_match: str | None = None
    """A field that an example must share with the question (the subject of an MMLU question)."""
    fewshot_ascending: bool = False
    """Examples stand in the order of their rows; by default the first row is nearest to the question."""
    headline: str = ""
    """Jinja template over the row's fields of what stands once in a prompt, before its first user turn."""
    stratify: str | None = None
    """A field whose values are strata: macro-averaged over, and resampled one by one."""
    max_docs: int | None = None
    """Only the first documents are used."""
    until: tuple[str, ...] = ()
    """Texts that end an answer of a base model, in place of the blank line."""
    fraction: float = Field(1.0, gt=0, le=1)
    """A seeded sample of that share of the documents is used."""
    golds_outside: bool = False
    """Some rows' gold labels are none of the task's labels: such a row is wrong whatever is chosen, and counted."""
    likelihood: bool = False
    """Ask for the likelihood of the gold answer in place of an answer."""


class Wording(BaseModel):
    """Overrides of a task's prompt template: an entry of a YAML mapping task → wording (`--wording FILE`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    doc_to_text: str | None = None
    """Jinja template of the user's turn over the row's fields (`{{inputs.premise}}`, `{{sentence}}`)."""
    headline: str | None = None
    """What stands once before the first user turn; empty for none."""
    doc_to_target: str | None = None
    """Jinja template of an example's answer."""
    gen_prefix: str | None = None
    """Prefix of the assistant's turn; empty for none."""
    doc_to_choice: list[str] | None = None
    """The labels that the model chooses among, in the order of the task's own."""
    description: str | None = None
    """Jinja template of a system turn, which stands once before everything."""
