"""How `lep pretrain` trains."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from darumeru.errors import UserError
from lep.pretraining.schedule import parse_schedule


class PretrainSettings(BaseModel):
    """How to train. Names are those of transformers' TrainingArguments where it has them; defaults are the paper's.

    Attributes:
        train: what is trained, `embeddings`, `head`, `new-rows`, `embeddings+ends` or `all`; or a schedule such as
            `head:0.1,embeddings`, each part with its share of the steps, the last with the rest.
        learning_rate: of the embedding; 2e-4 is what the paper took for LLaMa-3-8B (1e-4 for Mistral-7B).
        head_learning_rate: of an untied head; `learning_rate` where None.
        rest_learning_rate: of layers and norms; `learning_rate` where None.
        total_batch_size: rows of a step, over all processes and accumulated passes.
        per_device_train_batch_size: rows of a pass on a device.
        block_size: most tokens of a block, and of a row.
        packing: several short blocks in a row, kept apart by masks; otherwise one each, filled up.
        weight_decay: of AdamW; token rows decay only in steps whose batch holds their token.
        max_steps: steps instead of epochs, where above 0.
        save_steps: steps between checkpoints.
        save_total_limit: checkpoints to keep; all where None (only the two newest can be resumed from).
        eval_steps: steps between measurements on held-out text; `save_steps` where None.
        held_out_characters: characters of each held-out text that are read.
        dtype: of computation; trained weights are float32 in any case. auto: bfloat16 on a GPU that has it.
        attention: transformers' attention implementation; its own choice where None.
        cache_hidden_gb: disk for hidden states of the parts of a schedule that train an untied head alone.
        new_from: first new row, where no lep.json tells.
        lang: language of the corpus, for a warning; `scripts` instead of it.
        suite: benchmark to run along the way, every `eval_every` steps, on the bundle `data`.
        stop_if: rules that end the training, see `darumeru.watch`.
        keep_best: measure of the suite by which the best checkpoint is kept and becomes the result.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str = "embeddings"
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    head_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    rest_learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    total_batch_size: int = Field(256, ge=1)
    per_device_train_batch_size: int = Field(8, ge=1)
    block_size: int = Field(1024, ge=8)
    packing: bool = True
    weight_decay: float = Field(0.1, ge=0, allow_inf_nan=False)
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: int = Field(100, ge=0)
    num_train_epochs: float = Field(1.0, gt=0, allow_inf_nan=False)
    max_steps: int = -1
    max_grad_norm: float = Field(1.0, ge=0, allow_inf_nan=False)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    seed: int = Field(0, ge=0)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: Literal["eager", "sdpa", "flex_attention"] | None = None
    gradient_checkpointing: bool = False
    cache_hidden_gb: float = Field(0.0, ge=0)
    field: str = "text"
    lang: str = "ru"
    scripts: tuple[str, ...] = ()
    new_from: int | None = Field(None, ge=0)
    save_steps: int = Field(500, ge=1)
    save_total_limit: int | None = Field(None, ge=2)
    eval_steps: int | None = Field(None, ge=1)
    logging_steps: int = Field(10, ge=1)
    held_out_characters: int = Field(50_000, ge=1)
    report_to: tuple[str, ...] = ()
    suite: str | None = None
    eval_every: int | None = Field(None, ge=1)
    data: str = "mini"
    limit: int | None = Field(None, ge=1)
    stop_if: tuple[str, ...] = ()
    keep_best: str | None = None

    def of_the_result(self) -> dict[str, Any]:
        """The settings that the trained weights depend on; the others may change when a training goes on."""
        free = {"save_steps", "save_total_limit", "eval_steps", "logging_steps", "held_out_characters", "report_to",
                "suite", "eval_every", "data", "limit", "stop_if", "keep_best", "cache_hidden_gb", "device"}  # fmt: skip
        return self.model_dump(mode="json", exclude=free)


def settings_of(**values: Any) -> PretrainSettings:
    """Settings from options.

    Raises:
        UserError: the first value that is not allowed, with what is.
    """
    try:
        settings = PretrainSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UserError(f"{option} {first['input']!r} is not allowed: {first['msg'].lower()}.") from None
    parse_schedule(settings.train)
    return settings
