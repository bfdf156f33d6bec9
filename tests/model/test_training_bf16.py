"""Evaluation in memory of trainings in mixed precision: the passes are cast as the training's are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, default_data_collator

from darumeru.record.run import find_runs, load_run
from darumeru.watch import DarumeruCallback

TASKS = ("bpb_ru", "rwsd_tenth")


def trained(model: Any, folder: Path, out: Path, name: str) -> tuple[dict[int, Any], list[str]]:
    """Two steps in bfloat16 with an evaluation before and after; the records by step, and what failed."""
    rows = torch.randint(6, 600, (8, 32), generator=torch.Generator().manual_seed(0)).tolist()
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(out / name), max_steps=2, per_device_train_batch_size=2, learning_rate=0.1, bf16=True,
            use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no", seed=3,
        ),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],  # type: ignore[arg-type]
        processing_class=AutoTokenizer.from_pretrained(folder),
        data_collator=default_data_collator,
    )  # fmt: skip
    evaluation = DarumeruCallback(every=2, runs=out / f"runs-{name}", limit=1, tasks=TASKS, num_fewshot=0)
    trainer.add_callback(evaluation)
    trainer.train()
    runs = [load_run(run.path) for run in find_runs(out / f"runs-{name}")]
    return {run.header["training"]["step"]: run for run in runs}, evaluation.failures


@pytest.mark.parametrize(
    ("dtype", "embeddings", "tolerance"),
    [
        (torch.float32, False, 1e-6),
        (torch.bfloat16, False, 1e-6),
        # Embedding and head in float32 around a base in bfloat16, as `lep calibrate train` has it on a GPU: without the cast
        # the first layer gets float32 and has bfloat16. The residual stream rounds less than the oracle's.
        (torch.bfloat16, True, 0.02),
    ],
)
def test_lora_in_bfloat16_is_evaluated(
    dtype: torch.dtype, embeddings: bool, tolerance: float, tiny_base: Path, tmp_path: Path
) -> None:
    """accelerate casts in PEFT's forward, which is not the base model's that is evaluated."""
    peft = pytest.importorskip("peft")

    def base() -> Any:
        return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=dtype)

    whole = ["embed_tokens", "lm_head"] if embeddings else None
    lora = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], modules_to_save=whole, ensure_weight_tying=embeddings
    )
    wrapped = peft.get_peft_model(base(), lora)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    adapted, failures = trained(wrapped, tiny_base, tmp_path, "lora")
    assert not failures
    assert adapted.keys() == {0, 2}
    assert adapted[0].header["environment"]["autocast"] == "bfloat16"
    for run in adapted.values():
        assert not run.scores["failed"]
    # Before the first step the adapter is zero, so that a training of the plain model, where accelerate casts, is the oracle.
    plain, failures = trained(base(), tiny_base, tmp_path, "plain")
    assert not failures
    score, wanted = (run[0].scores["tasks"]["bpb_ru"]["score"]["value"] for run in (adapted, plain))
    assert score == pytest.approx(wanted, rel=tolerance)
    assert adapted[2].scores["tasks"]["bpb_ru"] != adapted[0].scores["tasks"]["bpb_ru"], "the adapter counts"


def test_a_batch_leaves_no_cast_to_its_reader(tiny_base: Path) -> None:
    """The reader of answers, which scores them, and the training behind it compute in types of their own."""
    from darumeru.engines.base import EngineOptions
    from darumeru.requests import Request
    from darumeru.watch.memory import MemoryEngine

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    engine = MemoryEngine(
        AutoModelForCausalLM.from_pretrained(tiny_base),
        tokenizer,
        frozenset({1}),
        EngineOptions(max_len=64),
        "bfloat16",
    )
    prompts = [tuple(range(6, 6 + n)) for n in (3, 20)]
    labels = (((7,),), ((9,),))
    asked = [Request(f"t/{n}/0", "choose", prompt, "", labels) for n, prompt in enumerate(prompts)]
    reader = engine.answers(asked)
    next(reader)
    assert not torch.is_autocast_enabled("cpu")
    reader.close()
    assert not torch.is_autocast_enabled("cpu")
