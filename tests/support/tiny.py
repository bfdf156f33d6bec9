"""Tiny models, and an engine that needs no model: what unit tests run on."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from darumeru.data.bundle import MINI
from darumeru.engines.base import Engine
from darumeru.evaluation import Plan
from darumeru.requests import Answer, Request

SHARED = Path(os.environ.get("DARUMERU_SHARED", Path(__file__).parents[3] / "shared")) / "data"

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def mini_texts() -> list[str]:
    """Russian and English texts to train a tiny tokenizer on."""
    texts = []
    for name in ("cp_para_ru", "cp_para_en", "cp_doc_ru", "cp_sent_ru"):
        for line in (MINI / name / "test.jsonl").read_text(encoding="utf-8").splitlines():
            texts.append(json.loads(line)["inputs"]["text"])
    return texts


def make_model(folder: Path, chat: bool, context: int = 4096, seed: int = 0) -> Path:
    """A two-layer Llama with random weights and a byte-level BPE of 600 tokens."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(mini_texts(), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="<|end|>" if chat else "</s>")  # noqa: S106
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class KnowingEngine(Engine):
    """Answers from the gold answers of a plan, each question spoiled with a given probability."""

    name = "oracle"

    def __init__(self, plan: Plan, spoil: float = 0.0, constant: bool = False) -> None:
        super().__init__()
        self.plan, self.spoil, self.constant = plan, spoil, constant
        self.tokenizer = plan.tokenizer
        self.asked: list[str] = []

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name, "dtype": "none"}

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        for request in requests:
            if request.id not in done:
                self.asked.append(request.id)
                yield [self.answer(request)]

    def answer(self, request: Request) -> Answer:
        task_name, index, number = request.id.rsplit("/", 2)
        task = self.plan.tasks[task_name]
        doc = task.docs()[int(index)]
        # A document is spoiled as a whole: half of a pair would be no better than none.
        spoiled = random.Random(f"{task_name}/{index}").random() < self.spoil
        if request.kind == "choose":
            gold = task.labels.index(task.gold(doc))  # type: ignore[attr-defined]
            if number == "1":  # the other order
                gold = 1 - gold
            right = 0 if self.constant else (gold + 1) % len(request.labels) if spoiled else gold
            return Answer(request.id, logprobs=tuple(0.0 if i == right else -5.0 for i in range(len(request.labels))))
        if request.kind == "likelihood":
            return Answer(request.id, logprobs=(0.0,), greedy=(True,))
        if request.kind == "rank":
            gold = set() if self.constant or spoiled else set(task.gold(doc))
            return Answer(request.id, logprobs=tuple(float(i in gold) for i in range(len(request.continuations))))
        gold_text = task.gold(doc)
        text = gold_text[0] if isinstance(gold_text, list) else str(gold_text)
        if task_name == "use" and doc["meta"]["type"] == "text":
            text = text.split(",")[0]
        if self.constant or spoiled:
            text = "ничего"
        tokens = self.tokenizer(" " + text, add_special_tokens=False)["input_ids"]
        return Answer(request.id, text=text, tokens=tuple(tokens), finish="stop")


def make_vllm_model(folder: Path, context: int) -> Path:
    """Write a base model with heads as wide as vLLM wants them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_model(folder, chat=False, context=context)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=600,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=context,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
