"""Whether a model still chats: turns that end, control tokens where they belong, bits of good answers."""

import math
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import transformers

from darumeru.errors import UserError
from lep.measure.chat import chat_measures
from support.chats import BY_TURNS, chat

THINKING = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
HELD_OUT = [
    chat("Как дела?", "Хорошо, спасибо!"),
    chat("Hi", "Hello", "Сколько будет дважды два, если считать честно?", "4"),
]


def chain(tiny_chat: Path, folder: Path, said: Sequence[str]) -> Path:
    """A model that after `<|assistant|>\\n` writes these tokens, each once, and goes round where the last is the first again."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_chat)
    places = tokenizer.convert_tokens_to_ids(["Ċ", *said])
    config = transformers.LlamaConfig(
        vocab_size=600, hidden_size=600, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in (model.model.layers[0].self_attn.o_proj, model.model.layers[0].mlp.down_proj):
            parameter.weight.zero_()
        model.get_input_embeddings().weight.copy_(torch.eye(600))
        model.lm_head.weight.zero_()
        for now, then in pairwise(places):
            model.lm_head.weight[then, now] = 10
    model.save_pretrained(folder)
    for file in tiny_chat.glob("*token*"):
        shutil.copy(file, folder)
    if (tiny_chat / "chat_template.jinja").is_file():
        shutil.copy(tiny_chat / "chat_template.jinja", folder)
    return folder


@pytest.mark.parametrize(
    ("said", "ended", "kept"),
    [
        (["a", "b", "c", "<|end|>"], 1, 1),
        (["<|end|>"], 0, 1),  # an empty answer is none
        (["a", "b", "a"], 0, 1),  # goes on for ever
        (["a", "<|user|>", "b", "<|end|>"], 1, 0),  # a control token inside
        (["a", "<", "s", ">", "<|end|>"], 1, 0),  # spelled out
        (["a", "<", "s", "b", "<|end|>"], 1, 1),  # no control token
    ],
)
def test_turns_end_and_the_template_is_kept(
    tiny_chat: Path, tmp_path: Path, said: list[str], ended: float, kept: float
) -> None:
    model = chain(tiny_chat, tmp_path / "model", said)
    found = chat_measures(model, HELD_OUT, limit=12)
    assert (found["chat_ended"], found["chat_template_kept"]) == (ended, kept)


def test_a_turn_that_ends_beyond_the_limit_has_not_ended(tiny_chat: Path, tmp_path: Path) -> None:
    model = chain(tiny_chat, tmp_path / "model", ["a", "b", "c", "<|end|>"])
    assert chat_measures(model, HELD_OUT, limit=2)["chat_ended"] == 0
    assert chat_measures(model, HELD_OUT, limit=3)["chat_ended"] == 1


def bits_by_hand(folder: Path, asked: str = "") -> float:
    """Bits per byte of the last answers and `<|end|>`; `asked` stands between the generation prompt and the answer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    bits = size = 0.0
    for messages in HELD_OUT:
        prompt = "<s>" + "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages[:-1])
        prompt += f"<|assistant|>\n{asked}"
        start = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        whole = tokenizer(f"{prompt}{messages[-1]['content']}<|end|>", add_special_tokens=False, return_tensors="pt")
        ids = whole["input_ids"][0]
        probabilities = model(ids[None]).logits[0].detach().double().softmax(dim=-1)
        bits -= sum(math.log2(probabilities[place - 1, ids[place]]) for place in range(start, len(ids)))
        size += len(messages[-1]["content"].encode())
    return bits / size


def test_bits_are_those_of_the_last_answer_and_its_end(tiny_chat: Path) -> None:
    wanted = pytest.approx(bits_by_hand(tiny_chat), rel=1e-4)
    assert chat_measures(tiny_chat, HELD_OUT, limit=2)["chat_bits_per_byte"] == wanted


def test_a_model_that_can_think_is_asked_to_answer_at_once(tiny_chat: Path, tmp_path: Path) -> None:
    """Else the measure would be of thoughts, which the held-out answers lack."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_chat)
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = THINKING
    tokenizer.save_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_chat, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    found = chat_measures(tmp_path, HELD_OUT, limit=2)["chat_bits_per_byte"]
    assert found == pytest.approx(bits_by_hand(tmp_path, "<think></think>"), rel=1e-4)
    assert found != pytest.approx(bits_by_hand(tmp_path), rel=1e-4)


def test_answers_do_not_depend_on_what_is_asked_beside_them(tiny_chat: Path) -> None:
    """Prompts of other lengths in a batch fill this one up; that must change nothing."""
    both = chat_measures(tiny_chat, [*HELD_OUT, *HELD_OUT], limit=8)
    alone = [chat_measures(tiny_chat, [one], limit=8) for one in HELD_OUT]
    for name in ("chat_ended", "chat_template_kept"):
        assert both[name] == sum(one[name] for one in alone) / 2


def test_what_cannot_be_measured_is_said(tiny_chat: Path, tiny_base: Path) -> None:
    with pytest.raises(UserError, match="No held-out conversation has an answer"):
        chat_measures(tiny_chat, [[{"role": "user", "content": "?"}]])
    with pytest.raises(UserError, match="chat template"):
        chat_measures(tiny_base, HELD_OUT)


def test_a_conversation_longer_than_the_context_loses_its_beginning(tiny_chat: Path, tmp_path: Path) -> None:
    ends = transformers.AutoTokenizer.from_pretrained(tiny_chat).eos_token_id
    config = transformers.GPT2Config(
        vocab_size=600, n_positions=96, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=ends
    )
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    model.save_pretrained(tmp_path / "model")
    for file in [*tiny_chat.glob("*token*"), *tiny_chat.glob("chat_template*")]:
        shutil.copy(file, tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    conversation = chat("Сколько будет дважды два? " * 20, "Четыре.")
    found = chat_measures(tmp_path / "model", [conversation], limit=12)
    prompt = f"<s><|user|>\n{conversation[0]['content']}<|end|>\n<|assistant|>\n"
    answer = tokenizer("Четыре.", add_special_tokens=False)["input_ids"]
    ids = [*tokenizer(prompt, add_special_tokens=False)["input_ids"], *answer]
    assert len(ids) > 96 > len(answer) * 2
    seen = torch.tensor([[tokenizer.bos_token_id, *ids[-95:]]])
    probabilities = model(seen).logits[0].detach().double().log_softmax(dim=-1)
    targets = [*answer, tokenizer.convert_tokens_to_ids("<|end|>")]
    nats = -sum(float(probabilities[n - len(targets), target]) for n, target in enumerate(targets))
    assert found["chat_bits_per_byte"] == pytest.approx(nats / math.log(2) / len("Четыре.".encode()), rel=1e-4)
    # An answer longer than the context is measured, too.
    endless = chat("Считай.", "один два три " * 30)
    assert 0 < chat_measures(tmp_path / "model", [endless], limit=12)["chat_bits_per_byte"] < 40


def test_a_conversation_that_the_template_refuses_is_left_out(tiny_chat: Path, tmp_path: Path) -> None:
    model = chain(tiny_chat, tmp_path / "model", ["a", "<|end|>"])
    template = model / "chat_template.jinja"
    plain = (
        template.read_text() if template.is_file() else transformers.AutoTokenizer.from_pretrained(model).chat_template
    )
    template.write_text(BY_TURNS + plain)
    odd = [*chat("Как дела?"), *HELD_OUT[0]]
    whole = chat_measures(model, HELD_OUT, limit=12)
    assert chat_measures(model, [odd, *HELD_OUT], limit=12) == {**whole, "chat_left_out": 1}
    with pytest.raises(UserError, match="No held-out conversation has an answer"):
        chat_measures(model, [odd], limit=12)
