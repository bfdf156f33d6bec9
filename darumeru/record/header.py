"""header.json: everything that was set, and the fingerprints of model, tokenizer, data and prompts.

Fields stand in the order in which they are written. The identity of a run is the fingerprint of its header up to
`imported`; what follows (`id`, `started`, `where`, `environment`) is known later and decides nothing.
"""

from __future__ import annotations

from typing import Any

from darumeru.record.model import FileName, Part

FORMAT = 1


class ModelFacts(Part):
    """What decides a model's answers, and what a reader wants to know of it."""

    name: str
    revision: str | None = None
    weights_sha256: str | None = None
    """None for a model behind a server."""
    tokenizer_sha256: str | None = None
    parameters: int | None = None
    vocab_size: int | None = None
    model_type: str | None = None
    context_len: int | None = None
    """In tokens, if the model says."""
    adapter_sha256: str | None = None
    chat_template: str | None = None
    """None in foundation mode."""
    chat_template_sha256: str | None = None
    chat_template_date: str | None = None
    """The date that a template is told which writes today's; None for one that writes none."""


class EngineFacts(Part):
    """How the model is computed."""

    name: str
    version: str | None = None
    dtype: str | None = None
    """As asked: `auto` may stand here; what was taken then is in `environment`."""
    device: str | None = None
    model_args: dict[str, Any] = {}
    base_url: str | None = None
    served_model: str | None = None
    approximate: bool = False
    """Whether a server's approximate answers are let through."""


class GroupFacts(Part):
    """Tasks whose mean is shown as one number."""

    name: str
    title: str
    tasks: list[str]
    counts: bool = True
    """Whether its tasks count in the suite's mean."""


class SuiteFacts(Part):
    """The suite as it was evaluated."""

    name: str
    version: str | None = None
    summary: str
    """What the mean over its tasks is called."""
    groups: list[GroupFacts]


class TaskFacts(Part):
    """What is asked of the model in a task."""

    version: str | None = None
    documents: int | None = None
    """How many are evaluated."""
    of: int | None = None
    """How many there are."""
    left_out: list[int] | None = None
    """The documents that are longer than the model's context; None where there are none."""
    data: dict[str, dict[str, Any]] | None = None
    """Split → its source, rows and fingerprint; the split that is tested comes first."""
    wording: dict[str, Any] | None = None
    """What overrides the task's own prompt template."""


class TrainingFacts(Part):
    """Where in a training the model was taken."""

    run: str | None = None
    name: str | None = None
    """The training's name, where `run` does not give it."""
    base: str | None = None
    """Name of the model that the training began from."""
    step: int | None = None
    tokens_seen: int | None = None


class ImportedFacts(Part):
    """The file of another tool from which a record was made."""

    format: str
    """As in `darumeru export --format`."""
    version: str | None = None
    """Of the tool that wrote it."""
    file: str
    """Its name, without folders."""
    sha256: str
    stated: list[str] = []
    """Tasks whose documents' values are those that the file states; the others were scored here, from the answers."""


class ThinkingFacts(Part):
    """Whether a model that can think did, and what its chat template was told."""

    mode: str
    """`off` or `on`."""
    template_args: dict[str, Any] = {}
    """All that the template was given beside the conversation."""
    opening: str = ""
    """What follows the generation prompt: off: up to the answer; on: up to the thought."""
    end: str | None = None
    """The token that ends a thought, where it is known."""
    budget: int | None = None
    """on: the most tokens of a thought."""
    resume: str | None = None
    """on: what stands between a thought's end and the answer."""


class Header(Part):
    """What was asked, of which model, on which data."""

    format: int
    model: ModelFacts
    engine: EngineFacts
    mode: str
    num_fewshot: int
    seed: int = 0
    limit: int | None = None
    max_prompt_len: int | None = None
    generation: dict[str, Any] = {}
    likelihood: bool = False
    exact: bool = False
    suite: SuiteFacts
    tasks: dict[FileName, TaskFacts]
    requests_sha256: str | None = None
    chat_template_args: dict[str, Any] = {}
    """Given by the user."""
    thinking: ThinkingFacts | None = None
    """None for a model that does not think."""
    training: TrainingFacts | None = None
    imported: ImportedFacts | None = None
    """None for what was asked here."""
    id: str | None = None
    started: str | None = None
    where: dict[str, Any] = {}
    """Surroundings of the process that began the run: paths, platform, packages."""
    environment: dict[str, Any] = {}
    """What the engine says of itself."""

    @property
    def how_drawn(self) -> str:
        """How tokens were drawn: `greedy`, or `temperature 0.6, top_p 0.95`."""
        facts = self.generation
        if not facts.get("do_sample"):
            return "greedy"
        idle = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
        shown = [f"temperature {facts.get('temperature', 1.0):g}"]
        shown += [f"{name} {facts[name]:g}" for name, none in idle.items() if facts.get(name, none) != none]
        return ", ".join(shown)

    @property
    def how_thought(self) -> str:
        """Whether a model that can think did: `off`, or `on, budget 2,048`; `none` for one that cannot."""
        if self.thinking is None:
            return "none"
        return self.thinking.mode if self.thinking.budget is None else f"on, budget {self.thinking.budget:,}"

    @property
    def repeats(self) -> int:
        """How many answers to each query were drawn."""
        return int(self.generation.get("repeats", 1))
