"""Evaluation in memory: it leaves a training as it was, writes ordinary records, and judges the curve."""

import json
import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)  # fmt: skip

from darumeru.errors import UserError
from darumeru.leaderboard import build
from darumeru.record.run import find_runs, load_run
from darumeru.watch import DarumeruCallback, StopFileCallback
from darumeru.watch.memory import untouched, unwrapped, weights_sha256

TASKS = ("bpb_ru", "cp_sent_ru", "rwsd_tenth")


def trainer_of(model: Path, output: Path, **more: Any) -> Trainer:
    torch.manual_seed(1)
    args: dict[str, Any] = {
        "max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-3, "logging_steps": 1, "seed": 3,
        "gradient_checkpointing": True, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no",
        "include_num_input_tokens_seen": "all", **more,
    }  # fmt: skip
    rows = torch.randint(6, 600, (24, 32), generator=torch.Generator().manual_seed(0)).tolist()
    return Trainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        TrainingArguments(output_dir=str(output), **args),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],  # type: ignore[arg-type]
        processing_class=AutoTokenizer.from_pretrained(model),
        data_collator=default_data_collator,
    )


def callback(runs: Path, **more: Any) -> DarumeruCallback:
    return DarumeruCallback(**{"every": 2, "runs": runs, "limit": 2, "tasks": TASKS, "num_fewshot": 0, **more})


def losses(trainer: Trainer) -> list[float]:
    return [e["loss"] for e in trainer.state.log_history if "loss" in e]


def test_a_training_with_and_without_it_ends_in_the_same_weights(tiny_dropout: Path, tmp_path: Path) -> None:
    """Dropout, gradient checkpointing, tied embeddings, float32: bit by bit, and so do the losses."""
    plain = trainer_of(tiny_dropout, tmp_path / "plain")
    plain.train()
    watched = trainer_of(tiny_dropout, tmp_path / "watched")
    evaluation = callback(tmp_path / "runs").attach(watched)
    watched.train()
    assert not evaluation.failures
    assert losses(watched) == losses(plain)
    assert len(losses(plain)) == 6
    a, b = plain.model.state_dict(), watched.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert watched.model.get_input_embeddings().weight is watched.model.get_output_embeddings().weight

    runs = [load_run(r.path) for r in find_runs(tmp_path / "runs")]
    assert all(r.complete for r in runs)
    trainings = sorted((r.header.training.to_json() for r in runs), key=lambda t: t["step"])
    tokens = 2 * 32
    assert trainings == [{"run": "watched", "step": s, "tokens_seen": s * tokens} for s in (0, 2, 4, 6)]
    assert len({r.header["model"]["weights_sha256"] for r in runs}) == 4
    assert {r.header["model"]["name"] for r in runs} == {"watched"}
    assert runs[0].header["environment"]["in_memory"] is True
    logged = [e for e in watched.state.log_history if "eval_darumeru/micro_avg" in e]
    assert [e["step"] for e in logged] == [0, 2, 4, 6]
    last = next(r for r in runs if r.header["training"]["step"] == 6)
    assert logged[-1]["eval_darumeru/bpb_ru"] == last.scores["tasks"]["bpb_ru"]["score"]["value"]


def test_a_record_in_memory_is_that_of_the_saved_checkpoint(tiny_dropout: Path, tmp_path: Path) -> None:
    """The numbers of the record are those that `darumeru run` gives for the checkpoint of that step."""
    import darumeru

    trainer = trainer_of(tiny_dropout, tmp_path / "t", max_steps=2, save_strategy="steps", save_steps=2)
    trainer.add_callback(callback(tmp_path / "runs", at_start=False))
    trainer.train()
    run = load_run(find_runs(tmp_path / "runs")[0].path)
    saved = darumeru.evaluate(
        tmp_path / "t" / "checkpoint-2", suite="darumeru-train", tasks=TASKS, data="mini", engine="hf", limit=2,
        num_fewshot=0, output=tmp_path / "saved",
    )  # fmt: skip
    for task in TASKS:
        assert list(run.samples(task)) == list(saved.samples(task))
    for key in ("tokenizer_sha256", "vocab_size", "parameters", "context_len", "model_type"):
        assert run.header["model"][key] == saved.header["model"][key], key
    assert "training" not in saved.header
    assert run.header["requests_sha256"] == saved.header["requests_sha256"]


def test_the_model_is_put_back_whatever_happened(tiny_dropout: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_dropout, dtype=torch.float32)
    model.gradient_checkpointing_enable()
    model.train()
    model.model.layers[0].eval()  # a module that its owner keeps in evaluation mode
    model.model.embed_tokens.weight.requires_grad_(False)
    model.config.use_cache = False
    model.generation_config.repetition_penalty = 1.5
    generation = model.generation_config
    modes = [m.training for m in model.modules()]
    checkpointing = [getattr(m, "gradient_checkpointing", None) for m in model.modules()]
    digest = weights_sha256(model)
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    want = (random.random(), np.random.rand(), torch.rand(1).item())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with pytest.raises(RuntimeError, match="in the middle"), untouched(model):
        assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
        model.eval()
        random.random(), np.random.rand(), torch.rand(3)
        model.generation_config = None
        model.config.use_cache = True
        model.config.extra = 1
        model.model.rotary_emb.inv_freq = torch.ones(2)
        next(b for b in model.buffers() if b.numel() > 2).zero_()
        model._cache = "a cache"
        model.requires_grad_(True)
        raise RuntimeError("in the middle")
    assert [m.training for m in model.modules()] == modes
    assert [getattr(m, "gradient_checkpointing", None) for m in model.modules()] == checkpointing
    assert any(checkpointing)
    assert model.generation_config is generation
    assert model.config.use_cache is False
    assert not hasattr(model.config, "extra")
    assert not hasattr(model, "_cache")
    assert not model.model.embed_tokens.weight.requires_grad
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == want
    assert weights_sha256(model) == digest
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    assert weights_sha256(model) != digest


def test_a_changed_rope_buffer_of_inference_does_not_reach_the_backward_pass(tmp_path: Path, tiny_base: Path) -> None:
    """Dynamic RoPE grows its frequencies with a long prompt, inside inference mode: a training would trip over them."""
    config = LlamaConfig(
        vocab_size=600, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, eos_token_id=1, bos_token_id=0,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    ids = torch.arange(200)[None]

    def step() -> torch.Tensor:
        model.zero_grad()
        model(ids[:, :40], labels=ids[:, :40]).loss.backward()
        assert model.model.layers[0].self_attn.q_proj.weight.grad is not None
        return model.model.layers[0].self_attn.q_proj.weight.grad.clone()

    before = step()
    with untouched(model), torch.inference_mode():
        model(ids)
    assert torch.equal(step(), before)


def test_lora_is_evaluated_with_its_adapter_in_place(tiny_base: Path, tmp_path: Path) -> None:
    """PEFT with gradient checkpointing (which hooks the embeddings): same end, and the adapter counts."""
    peft = pytest.importorskip("peft")

    def train(name: str, evaluate: bool) -> Trainer:
        trainer = trainer_of(tiny_base, tmp_path / name, max_steps=4, learning_rate=0.1)
        lora = peft.LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        torch.manual_seed(2)
        model = peft.get_peft_model(trainer.model, lora)
        trainer = Trainer(
            model,
            trainer.args,
            train_dataset=trainer.train_dataset,
            processing_class=trainer.processing_class,
            data_collator=default_data_collator,
        )
        if evaluate:
            trainer.add_callback(callback(tmp_path / "runs", name="lora"))
        trainer.train()
        return trainer

    a, b = train("plain", False), train("watched", True)
    want = a.model.state_dict()
    assert all(torch.equal(want[k], v) for k, v in b.model.state_dict().items())
    runs = {r.header["training"]["step"]: load_run(r.path) for r in find_runs(tmp_path / "runs")}
    scores = [runs[s].scores["tasks"]["bpb_ru"]["score"]["value"] for s in (0, 2, 4)]
    assert len(set(scores)) == 3, "the adapter changes the numbers"
    assert unwrapped(b.model) is not b.model


def test_a_failed_evaluation_does_not_end_the_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from darumeru.engines.hf.forward import Forward

    whole = Forward.score

    def broken(self: Any, *asked: Any) -> Any:
        if trainer.state.global_step == 2:
            raise RuntimeError("the disk is full")
        return whole(self, *asked)

    monkeypatch.setattr(Forward, "score", broken)
    trainer = trainer_of(tiny_base, tmp_path / "t")
    evaluation = callback(tmp_path / "runs")
    trainer.add_callback(evaluation)
    with caplog.at_level(logging.ERROR, "darumeru"):
        trainer.train()
    assert trainer.state.global_step == 6
    assert trainer.model.training
    assert evaluation.failures == ["step 2: RuntimeError: the disk is full"]
    assert "Evaluation at step 2 failed (1 so far), training continues" in caplog.text
    assert "the disk is full" in caplog.text
    done = [r.header["training"]["step"] for r in find_runs(tmp_path / "runs") if r.complete]
    assert sorted(done) == [0, 4, 6]


def test_a_resumed_training_goes_on_with_its_curve(tiny_base: Path, tmp_path: Path) -> None:
    """An evaluation that was made is not made again; one that the kill prevented is made up for."""
    options = {"save_strategy": "steps", "save_steps": 2}
    first = trainer_of(tiny_base, tmp_path / "t", **options)
    first.add_callback(callback(tmp_path / "runs", keep_best="bpb_ru"))
    first.train()
    before = {r.path: (r.path / "manifest.json").stat().st_mtime_ns for r in find_runs(tmp_path / "runs")}
    lost = next(r for r in find_runs(tmp_path / "runs") if r.header["training"]["step"] == 4)
    state_file = tmp_path / "t" / "checkpoint-4" / "trainer_state.json"
    state = json.loads(state_file.read_text())
    state["log_history"] = [e for e in state["log_history"] if not (e["step"] == 4 and "eval_darumeru/bpb_ru" in e)]
    state_file.write_text(json.dumps(state))
    shutil.rmtree(lost.path)
    second = trainer_of(tiny_base, tmp_path / "t", **options)
    second.add_callback(callback(tmp_path / "runs", keep_best="bpb_ru"))
    second.train(resume_from_checkpoint=str(tmp_path / "t" / "checkpoint-4"))
    after = {r.path: (r.path / "manifest.json").stat().st_mtime_ns for r in find_runs(tmp_path / "runs")}
    assert set(after) == set(before), "the same weights at the same step are the same runs"
    assert [p for p in after if after[p] != before[p]] == [lost.path]
    steps = [e["step"] for e in second.state.log_history if "eval_darumeru/micro_avg" in e]
    assert steps == [0, 2, 4, 6]


def test_a_rule_stops_the_training_and_says_why(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = trainer_of(tiny_base, tmp_path / "t", max_steps=20, save_strategy="steps", save_steps=100)
    trainer.add_callback(callback(tmp_path / "runs", rules=["cp_sent_ru < 0.9 for 3"]))
    with caplog.at_level(logging.WARNING, "darumeru"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert (tmp_path / "t" / "checkpoint-4").is_dir(), "a stopped training keeps what it has"
    assert "Rule fired, the training stops: cp_sent_ru < 0.9 for 3: " in caplog.text
    assert "at step 0, " in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "runs" / "rules.jsonl").read_text().splitlines()]
    rule = next(line for line in lines if "rule" in line)
    assert rule["rule"] == "cp_sent_ru < 0.9 for 3"
    assert [e["step"] for e in rule["evidence"]] == [0, 2, 4]
    assert all(e["value"] < 0.9 for e in rule["evidence"])
    assert rule["run"] == "t"


def test_evidence_that_cannot_be_written_does_not_end_the_training(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs" / "rules.jsonl").mkdir(parents=True)  # stands for a full disk
    trainer = trainer_of(tiny_base, tmp_path / "t", max_steps=20)
    trainer.add_callback(callback(tmp_path / "runs", rules=["loss > 0 for 3"], every=100, at_start=False))
    with caplog.at_level(logging.WARNING, "darumeru"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert "A note cannot be written, training continues" in caplog.text


def test_no_improvement_and_the_best_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    """A learning rate that does harm: the first checkpoint is best, the Trainer keeps it, and patience ends it."""
    trainer = trainer_of(
        tiny_base, tmp_path / "t", max_steps=40, learning_rate=3.0, save_strategy="steps", save_steps=2,
        save_total_limit=2, lr_scheduler_type="constant", max_grad_norm=0,
    )  # fmt: skip
    trainer.add_callback(callback(tmp_path / "runs", keep_best="bpb_ru", patience=2, at_start=False))
    trainer.train()
    values = {e["step"]: e["eval_darumeru/bpb_ru"] for e in trainer.state.log_history if "eval_darumeru/bpb_ru" in e}
    top = min(values, key=lambda s: values[s])
    best = json.loads((tmp_path / "t" / "best.json").read_text())
    assert (best["metric"], best["step"], best["value"]) == ("bpb_ru", top, values[top])
    assert best["checkpoint"] == f"checkpoint-{top}"
    assert load_run(best["run"]).header["training"]["step"] == top
    assert trainer.state.global_step == top + 4, "two evaluations after the best"
    kept = {p.name for p in (tmp_path / "t").glob("checkpoint-*")}
    assert kept == {f"checkpoint-{top}", f"checkpoint-{top + 4}"}, "the best outlives save_total_limit"


def test_a_loss_that_is_no_number_stops_the_training(tiny_base: Path, tmp_path: Path) -> None:
    class Poison(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    model.model.norm.weight.fill_(float("nan"))

    trainer = trainer_of(tiny_base, tmp_path / "t", max_steps=20, logging_nan_inf_filter=False)
    trainer.add_callback(Poison())
    evaluation = callback(tmp_path / "runs", rules=["loss not finite"], every=100, at_start=False)
    trainer.add_callback(evaluation)
    trainer.train()
    assert trainer.state.global_step == 3
    line = json.loads((tmp_path / "runs" / "rules.jsonl").read_text().splitlines()[0])
    assert line["rule"] == "loss not finite"
    assert line["evidence"] == [{"metric": "loss", "step": 3, "tokens_seen": None, "value": "nan"}]


def test_a_stop_file_ends_a_training(tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Writes(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                (Path(args.output_dir) / "STOP").write_text('{"reason": "bpb_ru > 3"}')

    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "STOP").write_text('{"reason": "old"}')
    trainer = trainer_of(tiny_base, tmp_path / "t", max_steps=20, save_strategy="steps", save_steps=100)
    trainer.add_callback(StopFileCallback(every=2))
    trainer.add_callback(Writes())
    with caplog.at_level(logging.WARNING, "darumeru"):
        trainer.train()
    assert trainer.state.global_step == 4
    assert (tmp_path / "t" / "checkpoint-4").is_dir()
    assert "bpb_ru > 3" in caplog.text
    assert "An earlier training was stopped (old)" in caplog.text


def test_the_leaderboard_draws_the_curve(tiny_base: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_base, tmp_path / "t", max_steps=4)
    trainer.add_callback(callback(tmp_path / "runs", tasks=(), limit=1, name="lep <b>"))
    trainer.train()
    built = build([tmp_path / "runs"], tmp_path / "site", published=False)
    out = built.path
    text = (out / "data" / "board.js").read_text(encoding="utf-8")
    curves = json.loads(text[text.index(",") + 1 : text.rindex(")")])["curves"]
    for x, ends in (("steps", [0, 2, 4]), ("tokens", [0, 128, 256])):
        for column in ("Mean of copies and choices", "DaruCopy (RU)", "Bits per byte (lower is better)"):
            points = [c for c in curves[x] if c["column"] == column]
            assert [c["x"] for c in points] == ends
            assert {c["training"] for c in points} == {"lep <b>"}
    assert (out / "figures" / "curve-steps.svg").exists()
    assert {r.entry.name for r in built.board.rows} == {f"lep <b> (step {s})" for s in (0, 2, 4)}
    assert all(task.reproduced for r in built.board.rows for task in r.entry.tasks.values())
    # Bits per byte are no share: they are drawn over steps, and have no place in a mean or among bars from 0 to 1.
    bars = (out / "figures" / "groups.svg").read_text(encoding="utf-8")
    assert "DaruCopy (RU)" in bars
    assert "Bits per byte" not in bars


def test_tensorboard_gets_the_metrics(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = trainer_of(
        tiny_base, tmp_path / "t", max_steps=4, logging_steps=2, report_to=["tensorboard"],
        **({} if "logging_dir" not in TrainingArguments.__dataclass_fields__ else {"logging_dir": str(tmp_path / "tb")}),
    )  # fmt: skip
    callback(tmp_path / "runs").attach(trainer)
    trainer.train()
    assert len(losses(trainer)) == 2, "our log entry does not take the place of the Trainer's"
    events = next(tmp_path.rglob("events.out.tfevents*"))
    found = EventAccumulator(str(events.parent)).Reload()
    tag = next(t for t in found.Tags()["scalars"] if t.endswith("darumeru/bpb_ru"))
    assert [e.step for e in found.Scalars(tag)] == [0, 2, 4]


def test_what_cannot_be_done_is_said_before_the_first_step(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Unknown suite 'darumeru-trian'\. Did you mean 'darumeru-train'"):
        DarumeruCallback("darumeru-trian", every=1)
    with pytest.raises(UserError, match=r"Unknown metric in rule 'darucopy_ur < 0\.9' 'darucopy_ur'.*'darucopy_ru'"):
        callback(tmp_path, tasks=(), rules=["darucopy_ur < 0.9"])
    with pytest.raises(UserError, match="every=0"):
        callback(tmp_path, every=0)
    with pytest.raises(UserError, match="'device' is no setting of an evaluation in memory"):
        callback(tmp_path, device="cpu")
    with pytest.raises(UserError, match="Unknown key of model_args for an evaluation in memory 'batch_token'"):
        callback(tmp_path, model_args={"batch_token": 64})
    with pytest.raises(UserError, match=r"Unknown setting 'limits'\. Did you mean 'limit'"):
        callback(tmp_path, limits=3)
    nameless = trainer_of(tiny_base, tmp_path / "t")
    nameless = Trainer(nameless.model, nameless.args, train_dataset=nameless.train_dataset)
    nameless.add_callback(callback(tmp_path / "runs"))
    with pytest.raises(UserError, match="needs the model's tokenizer"):
        nameless.train()
    missing = trainer_of(tiny_base, tmp_path / "t")
    missing.add_callback(callback(tmp_path / "runs", data="no-such-bundle"))
    with pytest.raises(UserError, match="Unknown bundle 'no-such-bundle'"):
        missing.train()
    assert missing.state.global_step == 0


def test_sharded_weights_are_refused_and_watch_is_named(tiny_base: Path, tmp_path: Path) -> None:
    from darumeru.watch.memory import refuse_sharded

    trainer = trainer_of(tiny_base, tmp_path / "t")
    trainer.add_callback(callback(tmp_path / "runs"))
    trainer.args.fsdp = "full_shard"
    with pytest.raises(UserError, match=r"Under FSDP.*darumeru watch CHECKPOINTS_DIR"):
        trainer.train()
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    refuse_sharded(model)
    model.model.norm.weight.ds_id = 3
    with pytest.raises(UserError, match=r"ZeRO-3.*darumeru watch"):
        refuse_sharded(model)
