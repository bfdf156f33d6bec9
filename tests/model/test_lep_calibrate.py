"""Calibration's training: what is learned from, that it resumes, and that merging keeps what was learned."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from darumeru.errors import DarumeruError, UserError
from lep import cli
from lep.calibration import calibrate, merge, train
from lep.calibration.chat import Example, Writers, read_chats, render_all
from lep.calibration.recipe import choose_recipe
from lep.calibration.rows import deal
from lep.model.checkpoint import write_checkpoint
from lep.model.manifest import read_manifest
from support.chats import BY_TURNS, chat, learned, prompter_of, rendered
from support.lep_models import ENGLISH, RUSSIAN, save_byte_level

SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|system|>be kind<|end|>\n{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
ENDS = frozenset({1})

MakeModel = Callable[..., Path]
Chats = list[list[dict[str, str]]]


CHATS: Chats = [chat(f"say {word}", f"{text[:20]} {word}") for text in ENGLISH + RUSSIAN for word in text.split()[:4]]


@pytest.fixture
def chat_model(make_model: MakeModel) -> MakeModel:
    """A model with a tokenizer and a chat template: chat_model("llama-tied")."""

    def make(kind: str = "llama-tied", template: str = TEMPLATE, **settings: Any) -> Path:
        folder = save_byte_level(
            make_model(f"model-{kind}", kind, rows=448, **settings), ENGLISH + RUSSIAN, 400, special=SPECIAL
        )
        (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "chats.jsonl"
    file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in CHATS))
    return file


# -- what is learned from ---------------------------------------------------------------------------------------------


def test_only_what_the_assistant_says_is_learned(chat_model: MakeModel) -> None:
    folder = chat_model()
    prompter = prompter_of(folder)
    messages = chat("say fox", "the fox", "and now ещё", "чаю, да выпей", "a turn without an answer")
    example = rendered(folder, messages, ENDS)
    assert isinstance(example, Example)
    assert learned(prompter, example) == ["the fox<|end|>", "чаю, да выпей<|end|>"]
    whole = prompter.tokenizer.decode(example.ids)
    assert whole == prompter.finished(messages[:4])
    # What the model is prompted with later is, token by token, what stands before the learned tokens.
    start = int(np.flatnonzero(example.trained)[0])
    assert example.ids[:start].tolist() == prompter.encode([prompter.render(messages[:1])])[0]
    assert rendered(folder, messages, ENDS, 10) == "too_long"
    assert rendered(folder, messages[:1], ENDS) == "no_answer"
    system = rendered(folder, [{"role": "system", "content": "hush"}, *messages[:2]], ENDS)
    assert isinstance(system, Example)
    assert "be kind" not in prompter.tokenizer.decode(system.ids)
    assert learned(prompter, system) == ["the fox<|end|>"]


def test_a_template_that_does_not_grow_turn_by_turn_is_refused(chat_model: MakeModel) -> None:
    # The prompt that asks for an answer is not how the answered conversation begins.
    odd = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    folder = chat_model(template=odd + "{% if add_generation_prompt %}<|assistant|>{% endif %}")
    assert rendered(folder, chat("a", "b"), ENDS) == "template"
    with pytest.raises(UserError, match="24 that the chat template does not render turn by turn"):
        render_all(Writers.of(prompter_of(folder).tokenizer, 64), iter(CHATS), ENDS, 500)
    # Some templates refuse a system turn: its words go before the user's, as in a prompt.
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE.replace(
        "be kind", ""
    )
    folder = chat_model("llama", template=strict)
    prompter = prompter_of(folder)
    example = rendered(folder, [{"role": "system", "content": "hush"}, *chat("a", "b")], ENDS)
    assert isinstance(example, Example)
    assert "hush\n\na<|end|>" in prompter.tokenizer.decode(example.ids)
    assert learned(prompter, example) == ["b<|end|>"]


def test_what_the_template_refuses_is_left_out_and_counted(chat_model: MakeModel) -> None:
    folder = chat_model(template=BY_TURNS + TEMPLATE.replace("be kind", ""))
    odd = [*chat("a")[:1], *chat("more", "b")]
    examples, left_out = render_all(Writers.of(prompter_of(folder).tokenizer, 64), iter([*CHATS, odd]), ENDS, 500)
    assert (len(examples), left_out) == (len(CHATS), {"template": 1})


def test_rows_hold_every_example_once_and_no_more_than_fits() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(5, 60, size=103)]
    steps = deal(lengths, batch=16, epochs=1, max_length=100, seed=0)
    assert sorted(i for step in steps for row in step for i in row) == list(range(103))
    assert [sum(map(len, step)) for step in steps] == [16] * 6 + [7]
    assert len({len(step) for step in steps[:-1]}) == 1
    assert all(0 < sum(lengths[i] for i in row) <= 100 for step in steps for row in step)
    assert len(steps[0]) < 16
    assert deal(lengths, batch=16, epochs=1, max_length=100, seed=0) == steps
    assert deal(lengths, batch=16, epochs=1, max_length=100, seed=1) != steps
    twice = [
        sorted(i for row in s for i in row) for s in deal(lengths[:100], batch=50, epochs=2, max_length=100, seed=0)
    ]
    assert sorted(twice[0] + twice[1]) == sorted(twice[2] + twice[3]) == list(range(100))
    assert twice[0] != twice[2]
    assert len(deal(lengths, batch=16, epochs=0.5, max_length=100, seed=0)) == 4
    assert deal([5, 6], batch=4, epochs=1, max_length=100, seed=0, packed=False) in ([[[0], [1]]], [[[1], [0]]])
    with pytest.raises(UserError, match="does not fit"):
        deal([101], batch=1, epochs=1, max_length=100, seed=0)


def test_packed_examples_are_computed_as_if_each_were_alone(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    """The first loss is the mean over the assistant's tokens, computed one example at a time by a plain forward pass."""
    folder = chat_model("llama")
    manifest = calibrate(folder, data, tmp_path / "out", recipe="self", batch=24, max_length=64, max_steps=1)
    measures = manifest["measures"]
    assert measures["packed"]
    assert measures["rows"] < measures["examples"] == 24

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    total, count = 0.0, 0
    for messages in read_chats(data):
        example = rendered(folder, messages, ENDS, 64)
        assert isinstance(example, Example)
        ids = torch.tensor([example.ids.tolist()])
        with torch.inference_mode():
            logprobs = torch.log_softmax(model(ids).logits[0, :-1], dim=-1)
        for place in np.flatnonzero(example.trained):
            total -= float(logprobs[place - 1, int(ids[0, place])])
            count += 1
    assert measures["trained_tokens"] == count
    assert measures["first_loss"] == pytest.approx(total / count, abs=1e-4)


def test_a_model_that_mixes_packed_examples_gets_a_row_for_each(
    chat_model: MakeModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(chat_model("llama"))
    examples = [Example(np.arange(10, 30, dtype=np.int32), np.ones(20, dtype=np.bool_))]
    assert train.keeps_apart(model, examples)
    plain = model.forward
    model.forward = lambda *args, position_ids=None, **more: plain(*args, **more)  # as if it did not look at positions
    assert not train.keeps_apart(model, examples)

    said: list[str] = []
    monkeypatch.setattr(train, "keeps_apart", lambda *_: False)
    manifest = calibrate(
        chat_model("llama-tied"), data, tmp_path / "out", max_steps=1, batch=8, max_length=64, warn=said.append
    )
    assert manifest["measures"]["rows"] == 8
    assert "a row of its own" in said[0]


def test_a_type_that_the_processor_computes_slowly_is_warned_about(
    chat_model: MakeModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "avx512_bw": False})
    said: list[str] = []
    shape: dict[str, Any] = {"max_steps": 1, "batch": 8, "max_length": 64, "device": "cpu", "warn": said.append}
    calibrate(chat_model("llama-tied"), data, tmp_path / "out", dtype="bfloat16", **shape)
    assert "computes bfloat16 slowly" in said[0]


# -- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama-tied", "llama", "qwen2", "gemma3", "gpt2", "gpt-neox", "phi"])
def test_merging_keeps_what_was_trained(kind: str, chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    folder, out = chat_model(kind), tmp_path / "out"
    manifest = calibrate(folder, data, out, recipe="self", learning_rate=0.01, batch=8, max_length=64, dtype="float32")
    measures = manifest["measures"]
    assert max(measures["largest_logit_difference"].values()) <= 1e-3
    assert measures["last_loss"] < measures["first_loss"]
    assert measures["sample_loss"]["after"] < measures["sample_loss"]["before"]
    old, new = (transformers.AutoModelForCausalLM.from_pretrained(f) for f in (folder, out))
    tied = old.get_input_embeddings().weight is old.get_output_embeddings().weight
    assert (new.get_input_embeddings().weight is new.get_output_embeddings().weight) == tied
    assert measures["trained_whole"] == (["embedding and head (tied)"] if tied else ["embedding", "head"])
    # Every head row moves, since the loss goes through all of them: it is lost if merging loses the trained head.
    moved = (old.get_output_embeddings().weight != new.get_output_embeddings().weight).any(dim=1)
    assert bool(moved.all())
    changed = {n for n, p in new.named_parameters() if not torch.equal(p, old.get_parameter(n))}
    count = old.config.get_text_config().num_hidden_layers
    assert all(
        ".0." in n or f".{count - 1}." in n for n in changed if "emb" not in n and "head" not in n and "wt" not in n
    )
    # The plain folder says what the trained model said: the loss of its answers went down.
    assert [p.name for p in tmp_path.glob("out*")] == ["out"]
    assert read_manifest(out) == manifest


def test_instruct_trains_all_layers_and_the_head_only(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    folder = chat_model("llama", num_hidden_layers=3)
    settings: dict[str, Any] = {"recipe": "instruct", "learning_rate": 0.01, "batch": 12, "max_length": 64}
    manifest = calibrate(folder, data, tmp_path / "head", **settings)
    assert manifest["measures"]["trained_whole"] == ["head"]
    old, new = (transformers.AutoModelForCausalLM.from_pretrained(f) for f in (folder, tmp_path / "head"))
    assert torch.equal(old.get_input_embeddings().weight, new.get_input_embeddings().weight)
    changed = {n for n, p in new.named_parameters() if not torch.equal(p, old.get_parameter(n))}
    maps = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    wanted = {n for n, _ in new.named_parameters() if n.split(".")[-2] in maps} | {"lm_head.weight"}
    assert changed == wanted
    manifest = calibrate(folder, data, tmp_path / "both", train_embeddings=True, **settings)
    assert manifest["measures"]["trained_whole"] == ["embedding", "head"]
    manifest = calibrate(folder, data, tmp_path / "none", train_head=False, **settings)
    assert manifest["measures"]["trained_whole"] == []


def test_a_lost_head_is_noticed(
    chat_model: MakeModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, merging and writing as they go wrong without care: the head is untied, LoRA's change or the head is left out."""
    import peft

    folder = chat_model("llama-tied")
    settings: dict[str, Any] = {"learning_rate": 0.01, "batch": 8, "max_length": 64}
    right = peft.LoraConfig

    def untying(**values: Any) -> Any:
        return right(**{**values, "ensure_weight_tying": False, "modules_to_save": ["lm_head"]})

    with monkeypatch.context() as patch:
        patch.setattr(peft, "LoraConfig", untying)
        with pytest.raises(DarumeruError, match="did not keep head and embedding of LlamaForCausalLM one matrix"):
            calibrate(folder, data, tmp_path / "untied", **settings)

    deltas = peft.tuners.lora.Linear.get_delta_weight
    with monkeypatch.context() as patch:
        patch.setattr(peft.tuners.lora.Linear, "get_delta_weight", lambda self, name: 0 * deltas(self, name))
        with pytest.raises(DarumeruError, match="Merging changed the model: logits differ by up to"):
            calibrate(folder, data, tmp_path / "lost", **settings)

    def forgetting(*arguments: Any, replace: dict[str, Any], **others: Any) -> None:
        layers = {name: tensor for name, tensor in replace.items() if "embed" not in name}
        write_checkpoint(*arguments, replace=layers, **others)

    monkeypatch.setattr(merge, "write_checkpoint", forgetting)
    with pytest.raises(DarumeruError, match="The written folder is another model: logits differ by up to"):
        calibrate(folder, data, tmp_path / "lost", **settings)
    assert not (tmp_path / "lost").exists()
    # Nothing that was trained is lost: the same command merges what is there.
    monkeypatch.undo()
    manifest = calibrate(folder, data, tmp_path / "lost", **settings)
    assert manifest["measures"]["largest_logit_difference"]["merging"] <= 1e-3


def test_a_bfloat16_model_is_rounded_once_and_else_untouched(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = chat_model("llama-tied", num_hidden_layers=3)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "LICENSE").write_text("free")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    manifest = calibrate(folder, data, tmp_path / "out", dtype="bfloat16", learning_rate=0.01, batch=8, max_length=64)
    compared = manifest["measures"]["largest_logit_difference"]
    assert max(compared["merging"], compared["writing"]) <= 1e-3 < compared["rounding"]
    old, new = load_file(folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in new.values()} == {torch.bfloat16}
    assert old.keys() == new.keys()
    assert all(torch.equal(old[n], new[n]) for n in old if ".layers.1." in n or "norm" in n)
    assert not torch.equal(old["model.embed_tokens.weight"], new["model.embed_tokens.weight"])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    for name in ("LICENSE", "chat_template.jinja", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == before[name]


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama-tied", "gpt2", "llama"])
def test_a_killed_training_goes_on_and_computes_the_same(
    kind: str, chat_model: MakeModel, data: Path, tmp_path: Path
) -> None:
    folder = chat_model(kind)
    settings: dict[str, Any] = {
        "learning_rate": 0.01, "batch": 5, "epochs": 2, "max_length": 64, "lora_dropout": 0.1, "save_every": 2,
    }  # fmt: skip
    whole = calibrate(folder, data, tmp_path / "whole", **settings)["measures"]
    assert whole["steps"] == 10

    class Killed(BaseException):
        pass

    def kill_at(step: int) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            if done == step:
                raise Killed

        return progress

    out, work = tmp_path / "out", tmp_path / "out.training"
    with pytest.raises(Killed):
        calibrate(folder, data, out, progress=kill_at(5), **settings)
    assert not out.exists()
    assert train.newest_checkpoint(work) == work / "checkpoint-4"
    # A kill in the middle of a write: a newer checkpoint that is not whole.
    (work / "checkpoint-6").mkdir()
    (work / "checkpoint-6" / "adapter_model.safetensors").write_bytes(b"half")
    seen: list[int] = []
    with pytest.raises(UserError, match=r"other settings \(learning_rate\)"):
        calibrate(folder, data, out, **{**settings, "learning_rate": 0.02})
    with pytest.raises(Killed):
        calibrate(folder, data, out, progress=kill_at(9), **settings)
    again = calibrate(folder, data, out, progress=lambda done, total: seen.append(done), **settings)["measures"]
    assert min(seen) == 8
    assert again["losses"] == whole["losses"]
    assert not work.exists()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_force_begins_anew(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    folder, out = chat_model("llama-tied"), tmp_path / "out"
    settings: dict[str, Any] = {"batch": 24, "max_length": 64}
    first = calibrate(folder, data, out, **settings)
    with pytest.raises(UserError, match="is not empty"):
        calibrate(folder, data, out, **settings)
    second = calibrate(folder, data, out, force=True, learning_rate=0.01, **settings)
    assert second["settings"]["learning_rate"] == 0.01 != first["settings"]["learning_rate"]


def test_a_training_that_diverges_says_so(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DarumeruError, match="no number"):
        calibrate(chat_model(), data, tmp_path / "out", learning_rate=1e30, warmup=0.0, batch=4, max_length=64)
    assert not (tmp_path / "out").exists()


def test_evaluation_along_the_way(
    chat_model: MakeModel, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Darumeru's callback is a part of the training; a stop that it asks for is told, and what is trained stays."""
    made: list[tuple[Any, ...]] = []

    class Callback(transformers.TrainerCallback):
        def __init__(self, suite: str, *, every: int, data: str, runs: Path, tokenizer: Any, name: str) -> None:
            made.append((suite, every, data, runs, tokenizer.chat_template, name))
            self.every = every

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop |= state.global_step == self.every

    module = types.ModuleType("darumeru.watch")
    module.DarumeruCallback = Callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "darumeru.watch", module)
    settings: dict[str, Any] = {"batch": 6, "max_length": 64, "save_every": 1, "suite": "darumeru-train"}
    with pytest.raises(DarumeruError, match="stopped after 2 of 4 steps"):
        calibrate(chat_model(), data, tmp_path / "out", eval_every=2, **settings)
    assert made == [("darumeru-train", 2, "mini", tmp_path / "out.runs", TEMPLATE, "out")]
    manifest = calibrate(chat_model("llama"), data, tmp_path / "other", eval_every=9, **settings)
    assert manifest["measures"]["steps"] == 4


# -- settings ---------------------------------------------------------------------------------------------------------


def test_recipes_are_the_published_ones_and_can_be_changed() -> None:
    own = choose_recipe("self", {})
    assert (own.lora_rank, own.lora_alpha, own.learning_rate, own.weight_decay) == (8, 1, 2.5e-5, 0.1)
    assert (own.lora_layers, own.train_embeddings, own.train_head) == ("ends", True, True)
    assert (own.max_length, own.batch, own.epochs) == (8096, 64, 1)
    tuned = choose_recipe("instruct", {"batch": 3})
    assert (tuned.lora_rank, tuned.lora_alpha, tuned.learning_rate, tuned.weight_decay) == (32, 16, 5e-5, 0.05)
    assert (tuned.lora_layers, tuned.train_embeddings, tuned.train_head) == ("all", False, True)
    assert (tuned.max_length, tuned.batch, tuned.epochs) == (4096, 3, 1)
    with pytest.raises(UserError, match="choose one of self, instruct"):
        choose_recipe("other", {})
    with pytest.raises(UserError, match=r"Unknown field of a recipe 'lora_rang'. Did you mean 'lora_rank'"):
        choose_recipe("self", {"lora_rang": 3})
    with pytest.raises(UserError, match="--lora-rank: 0 is not possible"):
        choose_recipe("self", {"lora_rank": 0})


def test_what_cannot_be_calibrated_is_named(chat_model: MakeModel, data: Path, tmp_path: Path) -> None:
    folder = chat_model()
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": [{"role": "robot", "content": "x"}]}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1: the role"):
        calibrate(folder, bad, tmp_path / "out")
    with pytest.raises(UserError, match="24 of more than 20 tokens"):
        calibrate(folder, data, tmp_path / "out", max_length=20)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        calibrate(folder, data, tmp_path / "out")


def test_command_line(
    chat_model: MakeModel,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    arguments = ["calibrate", "train", "--model", chat_model(), "--data", data, "--output", out, "--max-length", "64"]
    monkeypatch.setattr(sys, "argv", ["lep", *map(str, arguments), "--batch", "24", "--no-train-embeddings"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "calibrate → " in said
    assert "largest_logit_difference: merging" in said
    assert "losses" not in said
    manifest = read_manifest(out)
    assert manifest is not None
    assert manifest["settings"]["train_embeddings"] is False
