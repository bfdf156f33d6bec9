"""Settings of `lep pretrain`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from darumeru.options import Option, deciding, option_of, validated
from darumeru.settings import TaskSettings
from lep.model.loading import Quantization
from lep.pretraining.best import parse_limits
from lep.pretraining.replay import parse_replay
from lep.pretraining.schedule import parse_schedule

_CHOICE = {"keep_best", "within"}


def _as_in_a_run(name: str, **changes: Any) -> Option:
    """Return what `darumeru run` says of its setting of this name; what is trained does not depend on it."""
    return replace(option_of(TaskSettings.model_fields[name]), decides=False, **changes)


class PretrainSettings(BaseModel):
    """Settings of a training. Names are those of transformers' TrainingArguments where it has them; defaults are the paper's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Annotated[
        str,
        Option(
            "embeddings, head, new-rows, embeddings+ends, all, new-rows+lora, embeddings+lora, lora; or a schedule in which "
            "every part but the last has its share of the steps: head:0.1,embeddings."
        ),
    ] = "embeddings"
    untie: Annotated[
        bool, Option("Give a tied model a head of its own, at first the embedding's copy.", flag="--untie")
    ] = False
    learning_rate: Annotated[float, Option("Of the embedding (and of a head tied to it).")] = Field(
        2e-4, gt=0, allow_inf_nan=False
    )
    """2e-4 is what the paper took for LLaMa-3-8B (1e-4 for Mistral-7B)."""
    head_learning_rate: Annotated[float | None, Option("Of an untied head.", default="--learning-rate")] = Field(
        None, gt=0, allow_inf_nan=False
    )
    rest_learning_rate: Annotated[float | None, Option("Of layers and norms.", default="--learning-rate")] = Field(
        None, gt=0, allow_inf_nan=False
    )
    lora_rank: Annotated[int, Option("LoRA: rank of its matrices.")] = Field(16, ge=1)
    lora_alpha: Annotated[
        float | None, Option("LoRA: its contribution is multiplied by alpha / rank.", default="twice the rank")
    ] = Field(None, gt=0, allow_inf_nan=False)
    lora_layers: Annotated[str, Option("LoRA: all, ends (the first and the last), or numbers from 0: 0,1,29.")] = "all"
    lora_targets: Annotated[
        tuple[str, ...],
        Option("LoRA: linear maps of a layer by their names, q_proj v_proj.", default="all of them", many="spread"),
    ] = ()
    lora_learning_rate: Annotated[float, Option("Of LoRA's matrices.")] = Field(5e-4, gt=0, allow_inf_nan=False)
    shared_learning_rate: Annotated[
        float,
        Option(
            "Of a linear map of each new token's pieces in the vocabulary before, which moves all new rows together; 1e-4 is "
            "a good rate. 0: every row learns by itself."
        ),
    ] = Field(0.0, ge=0, allow_inf_nan=False)
    total_batch_size: Annotated[int, Option("Rows of a step, over all GPUs and accumulated passes.")] = Field(256, ge=1)
    per_device_train_batch_size: Annotated[int, Option("Rows of one pass on one device.")] = Field(8, ge=1)
    block_size: Annotated[int, Option("Most tokens of a block, and of a row.")] = Field(1024, ge=8)
    packing: Annotated[
        bool, Option("Several short blocks in a row, kept apart by masks; otherwise one each, filled up.")
    ] = True
    weight_decay: Annotated[float, Option("Of AdamW; token rows decay only in steps that use their token.")] = Field(
        0.1, ge=0, allow_inf_nan=False
    )
    anchor: Annotated[
        float,
        Option(
            "Pull of old rows, layers and LoRA to where they began, weight decay's counterpart: a step moves them by this "
            "times the learning rate of the way back."
        ),
    ] = Field(0.0, ge=0, allow_inf_nan=False)
    lr_scheduler_type: Annotated[
        Literal["cosine", "linear", "constant", "constant_with_warmup"], Option("How the learning rate falls.")
    ] = "cosine"
    warmup_steps: Annotated[int, Option("Steps of warm-up.")] = Field(100, ge=0)
    num_train_epochs: Annotated[float, Option("Passes over the corpus.")] = Field(1.0, gt=0, allow_inf_nan=False)
    max_steps: Annotated[int, Option("Steps instead of epochs, where above 0.")] = -1
    max_grad_norm: Annotated[float, Option("Longer gradients are shortened to this; 0 never.")] = Field(
        1.0, ge=0, allow_inf_nan=False
    )
    adam_beta1: Annotated[float, Option("Of AdamW.")] = Field(0.9, ge=0, lt=1)
    adam_beta2: Annotated[float, Option("Of AdamW.")] = Field(0.95, ge=0, lt=1)
    adam_epsilon: Annotated[float, Option("Of AdamW.")] = Field(1e-5, gt=0)
    """With 1e-8 a row that no text uses, whose only gradient is its small share of the softmax, moves by half of the
    learning rate at each step (median of SmolLM2's rows, with β2 of 0.999); with these two by 0.2 %."""
    seed: Annotated[int, Option("Of the order of the data.")] = Field(0, ge=0)
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option("Of computation; trained weights are float32. auto: bfloat16 on a GPU that has it."),
    ] = "auto"
    quantize: Annotated[
        Quantization, Option("Linear maps of frozen layers while training, with bitsandbytes; what is written is not.")
    ] = "none"
    device: Annotated[Literal["auto", "cpu", "cuda"], Option("Where to train.", decides=False)] = "auto"
    attention: Annotated[
        Literal["eager", "sdpa", "flex_attention"] | None,
        Option("Attention implementation.", default="transformers' choice"),
    ] = None
    fsdp: Annotated[
        bool,
        Option(
            "Cut weights, gradients and optimizer up among the processes (FSDP2), each of which has all of them otherwise (DDP).",
            flag="--fsdp",
            decides=False,
        ),
    ] = False
    gradient_checkpointing: Annotated[bool, Option("Less memory, more time.")] = False
    cache_hidden_gb: Annotated[
        float,
        Option("Disk for hidden states while an untied head is trained alone for several epochs.", decides=False),
    ] = Field(0.0, ge=0)
    field: Annotated[str, Option("Text field of JSON lines, Parquet and data sets.")] = "text"
    lang: Annotated[str, Option("Language of the corpus; another script is warned about.")] = "ru"
    scripts: Annotated[
        tuple[str, ...], Option("Unicode scripts instead of those of --lang; 'any' for all.", many="spread")
    ] = ()
    replay: Annotated[
        tuple[str, ...],
        Option(
            "Texts that are mixed in, FILE=SHARE of the rows of each step: en.jsonl.gz=0.25.",
            default="none",
            many="spread",
        ),
    ] = ()
    new_from: Annotated[int | None, Option("First new row, where no lep.json tells.")] = Field(None, ge=0)
    save_steps: Annotated[int, Option("Steps between checkpoints.", decides=False)] = Field(500, ge=1)
    save_total_limit: Annotated[
        int | None,
        Option("Checkpoints to keep; only the two newest can be resumed from.", default="all", decides=False),
    ] = Field(None, ge=2)
    eval_steps: Annotated[
        int | None, Option("Steps between held-out measurements.", default="--save-steps", decides=False)
    ] = Field(None, ge=1)
    logging_steps: Annotated[int, Option("Steps between lines of history.jsonl.", decides=False)] = Field(10, ge=1)
    held_out_characters: Annotated[int, Option("Characters of each held-out text that are read.", decides=False)] = (
        Field(50_000, ge=1)
    )
    report_to: Annotated[tuple[str, ...], Option("tensorboard, wandb, trackio (several).", decides=False)] = ()
    suite: Annotated[str | None, _as_in_a_run("suite", default="no evaluation")] = None
    """Benchmark that is run along the way, like the settings that follow."""
    eval_every: Annotated[int | None, Option("Steps between evaluations.", default="--save-steps", decides=False)] = (
        Field(None, ge=1)
    )
    data: Annotated[str, _as_in_a_run("data")] = "mini"
    limit: Annotated[int | None, _as_in_a_run("limit")] = Field(None, ge=1)
    stop_if: Annotated[
        tuple[str, ...],
        Option('Rules that end the training: "darucopy_ru < 0.9 for 3" (several).', decides=False),
    ] = ()
    keep_best: Annotated[
        str | None,
        Option(
            "The best checkpoint by this measure is the result: bits_per_byte or bits_per_byte_NAME of the held-out texts, "
            "or a measure of the benchmark.",
            default="the last",
            decides=False,
        ),
    ] = None
    within: Annotated[
        tuple[str, ...],
        Option(
            'Among the checkpoints that keep limits (several): "bits_per_byte_en 1%", of the model before the change of '
            'vocabulary; "bits_per_byte_en 1.45".',
            decides=False,
        ),
    ] = ()

    def of_the_result(self) -> dict[str, Any]:
        """Return the settings that the trained weights depend on; the others may change when a training resumes.

        Those of what is not used (LoRA, replay, anchor, untying, a shared map, quantization) are not among them, so that
        trainings from before it existed stay what they are. Texts are named without their folders.
        """
        lora = any("lora" in what.split("+") for what, _ in parse_schedule(self.train))
        found = {name: value for name, value in deciding(self).items() if lora or not name.startswith("lora_")}
        replay = [part.name for part in parse_replay(found.pop("replay"))]
        for unused in (name for name in ("anchor", "untie", "shared_learning_rate") if not found[name]):
            del found[unused]
        if self.quantize == "none":
            del found["quantize"]
        return found | ({"replay": replay} if replay else {})

    def of_the_choice(self) -> dict[str, Any]:
        """Return the settings that say which checkpoint is the result, where they are used; as JSON has them."""
        return {name: value for name, value in self.model_dump(mode="json").items() if name in _CHOICE and value}


def settings_of(**values: Any) -> PretrainSettings:
    """Settings from options.

    Raises:
        UserError: the first value that is not allowed, with what is.
    """
    settings = validated(PretrainSettings, values)
    parse_schedule(settings.train)
    parse_replay(settings.replay)
    parse_limits(settings.within)
    return settings
