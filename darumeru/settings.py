"""What a run, a watch and an arena are asked to do, in one set of words: each setting is described here once.

Command lines, recipes and help are made from these classes (`darumeru.options`); `darumeru.watch.settings` and
`darumeru.arena.settings` add what is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from darumeru.options import Option, Strict, validated


def _switched(value: Any) -> Any:
    """Return the word for what YAML reads as a truth value: `thinking: on`."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


def _one_or_more(value: Any) -> Any:
    """Return the one text in a list of one: it means the same as the text, also in fingerprints."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


# Settings that more than one class has.
Suite = Annotated[str, Option("Suite; 'darumeru list suites' names them.")]
Tasks = Annotated[tuple[str, ...], Option("Only these tasks (comma-separated, or repeated).", many="comma")]
Data = Annotated[str, Option("Bundle: hub, mini, or the folder of an offline bundle.")]
Lock = Annotated[Path | None, Option("bundle.json, or folder of a run, that pins the hub's revisions.", metavar="PATH")]
IncludePath = Annotated[tuple[Path, ...], Option("Folder of further tasks and suites (repeatable).", metavar="FOLDER")]
Engine = Annotated[str, Option("hf, vllm, auto (vLLM where it is installed), or api.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], Option("Of weights and computation.")]
ModelArgs = Annotated[dict[str, Any], Option("Engine arguments (comma-separated, or repeated).", many="comma")]
ApiKeyEnv = Annotated[
    str | None, Option("api: environment variable that holds the API key.", decides=False, metavar="NAME")
]
Approximate = Annotated[bool, Option("api: accept numbers that the server cannot give exactly; the record says so.")]
Thinking = Annotated[
    Literal["auto", "off", "on"],
    BeforeValidator(_switched),
    Option("Whether the model thinks before it answers; auto: off, where its chat template can switch it."),
]
THINKING_BUDGET = 2048
ThinkingBudget = Annotated[
    int, Field(ge=1), Option("Most tokens of a thought; one that is longer counts as an empty answer.")
]
ThinkEnd = Annotated[
    str | None, Option("The token that ends a thought.", default="as the chat template has it", metavar="TOKEN")
]
ChatTemplateArgs = Annotated[
    dict[str, Any], Option("Arguments of the chat template (comma-separated, or repeated).", many="comma")
]
STALL = 7200.0
"""Seconds without progress after which something hangs: more than loading and one batch of long answers take."""
Stall = Annotated[
    float, Field(gt=0), Option("Seconds without progress after which a worker or evaluation is ended.", decides=False)
]
Tokenizer = Annotated[
    Path | None, Option("Folder of the tokenizer.", default="the checkpoint, or the folder above", metavar="FOLDER")
]


def _mode(value: Any) -> Any:
    """Return the mode by the name that records have for it."""
    return "foundation" if value == "base" else value


class Training(BaseModel):
    """Where in a training a model was taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str = Field(min_length=1)
    """The training's name; it stands in the record as the model's."""
    step: int = Field(ge=0)
    """Optimizer steps."""
    tokens_seen: int | None = Field(default=None, ge=0)
    """Tokens trained on, where somebody counted."""


class EngineSettings(Strict):
    """How a model is computed."""

    engine: Engine = "auto"
    dtype: Dtype = "auto"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where the model is computed.")] = "auto"
    model_args: ModelArgs = {}
    max_prompt_len: Annotated[
        int,
        Option(
            "Longest prompt in tokens; few-shot examples that do not fit are left out; "
            "what is still longer is truncated, and counted."
        ),
    ] = Field(4096, ge=16)
    seed: Annotated[int, Option("Of samples, intervals and engine.")] = 0
    exact: Annotated[
        bool, Option("Numbers that repeat bit by bit, at the cost of speed: no shared prefixes, fixed batches.")
    ] = False
    trust_remote_code: Annotated[bool, Option("Run Python code that the model brings.")] = False


class TaskSettings(Strict):
    """What a model is asked."""

    suite: Suite = "darumeru"
    tasks: Tasks = ()
    data: Data = "hub"
    lock: Lock = None
    limit: Annotated[
        int | None, Option("A seeded random sample of that many documents a task.", default="all documents")
    ] = Field(None, ge=1)
    mode: Annotated[
        Literal["auto", "instruct", "foundation"],
        BeforeValidator(_mode),
        Option("Through the chat template, or as a base model ('base' will do); auto: by the chat template."),
    ] = "auto"
    num_fewshot: Annotated[int | None, Option("Examples before each question.", default="5 foundation, 0 instruct")] = (
        Field(None, ge=0)
    )
    wording: Annotated[
        Path | None, Option("YAML file that overrides the prompt templates of tasks.", metavar="FILE")
    ] = None
    include_path: IncludePath = ()
    likelihood: Annotated[bool, Option("Score the likelihood of the gold answers instead of asking for answers.")] = (
        False
    )
    corpus: Annotated[Path | None, Option("Text file (.txt, .jsonl) for the task bpb_corpus.", metavar="FILE")] = None


class SamplingSettings(Strict):
    """How answers are drawn, and how often."""

    sampling: Annotated[
        Literal["auto", "greedy", "model"],
        Option(
            "greedy, or as the model's generation_config.json recommends; auto: greedy, unless the model thinks. Options such as "
            "--temperature go before what it recommends."
        ),
    ] = "auto"
    temperature: Annotated[
        float | None, Option("Draw each token from softmax(logits / temperature); 0 is greedy.", default="greedy")
    ] = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: Annotated[
        float | None, Option("Draw from the fewest tokens whose probabilities sum to it.", default="all tokens")
    ] = Field(None, gt=0, le=1)
    top_k: Annotated[int | None, Option("Draw from so many most probable tokens; 0 for all.", default="all tokens")] = (
        Field(None, ge=0)
    )
    min_p: Annotated[
        float | None,
        Option("Draw from tokens that have this share of the highest probability.", default="all tokens"),
    ] = Field(None, ge=0, le=1)
    repeats: Annotated[int, Option("Drawn answers to each question that is answered by a text.")] = Field(
        1, ge=1, le=1000
    )


class ThinkingSettings(Strict):
    """Whether a model thinks before it answers."""

    thinking: Thinking = "auto"
    thinking_budget: ThinkingBudget = THINKING_BUDGET
    think_end: ThinkEnd = None
    chat_template_args: ChatTemplateArgs = {}

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        """Refuse what only a model that thinks needs."""
        for name in ("thinking_budget", "think_end"):
            if self.thinking != "on" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"--{name.replace('_', '-')} belongs to a model that thinks: it needs --thinking on")
        return self


class Settings(ThinkingSettings, EngineSettings, TaskSettings, SamplingSettings):
    """What a run is asked to do. Two runs with equal settings on equal model, data and code are one run."""

    model: Annotated[str, Option("Model folder, or hub id.")]
    revision: Annotated[str | None, Option("Revision of a hub id.", default="the newest")] = None
    adapter: Annotated[
        Path | None, Option("Folder of a LoRA adapter to apply, nothing merged on disk.", metavar="FOLDER")
    ] = None
    base_url: Annotated[
        str | tuple[str, ...] | None,
        BeforeValidator(_one_or_more),
        Option("api: address of an OpenAI-compatible server (repeatable: several of one model).", metavar="URL"),
    ] = None
    served_model: Annotated[
        str | None, Option("api: the server's name for the model.", default="the last part of --model", metavar="NAME")
    ] = None
    api_key_env: ApiKeyEnv = None
    approximate: Approximate = False
    tokenizer: Tokenizer = None
    """The tokenizer's folder, where the model's has none."""
    training: Training | None = None


class WorkerSettings(Strict):
    """Where answers are computed: in this process, or by workers on this machine or a cluster. It decides no result."""

    workers: Annotated[
        Annotated[int, Field(ge=1)] | Literal["auto"],
        Option(
            "Processes that answer side by side, each with a loaded model; auto: as many as there are devices.",
            decides=False,
            metavar="N",
        ),
    ] = 1
    ray: Annotated[
        str | None,
        Option(
            "Ray cluster for the workers, which this machine is a node of: auto, or HOST:PORT.",
            decides=False,
            metavar="ADDRESS",
            default="none",
        ),
    ] = None
    devices_per_worker: Annotated[
        int, Field(ge=1), Option("GPUs over which each worker spreads its model.", decides=False)
    ] = 1
    stall: Stall = STALL

    @property
    def apart(self) -> bool:
        """Whether workers answer, not this process."""
        return self.workers != 1 or self.ray is not None


_LATER: tuple[type[Strict], ...] = (ThinkingSettings, SamplingSettings)


def as_before(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those that came later and say nothing new, so that older fingerprints of settings hold."""
    defaults = {name: field.default for kind in _LATER for name, field in kind.model_fields.items()}
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def settings_of(**values: Any) -> Settings:
    """Return the settings of a run from keyword arguments.

    Raises:
        UserError: an unknown or impossible setting.
    """
    return validated(Settings, values)
