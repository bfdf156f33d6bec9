"""A tiny model that thinks: trained here to think for a few tokens and to answer, with a chat template that has a switch.

What it says to a question is fixed (`SAID`), so that a test knows every token without asking the code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' and loop.last %}<think>{{ m['reasoning_content'] }}</think>\n{{ m['content'] }}<|end|>\n"
    "{% else %}{{ m['content'] }}<|end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>\n{% endif %}{% endif %}"
)
"""As of hybrid models: without its switch it lets the model think, and its open turns are closed to thoughts."""

SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
MARKS = ("<think>", "</think>")
"""Added tokens that are not special: decoding keeps them, as Qwen3's."""


@dataclass(frozen=True)
class Said:
    """What the model says to a question."""

    thought: str
    after: str
    """Its answer after the thought."""
    at_once: str
    """Its answer without."""


SAID = {
    "сколько ног у кота": Said("у кота две пары", "4", "3"),
    "сколько ног у паука": Said("паук не кот, у него четыре пары", "8", "6"),
    "сколько ног у змеи": Said("ног нет", "0", "4"),
    "сколько ног у жука": Said("жук не паук", "6", "6"),
    "сколько будет один и два": Said("один, два и ещё один", "3", "4"),
    "сколько ног у краба": Said("у краба " * 7 + "клешни", "8", "8"),
}
LONG = "сколько ног у краба"
"""Its thought of 62 tokens is longer than the budget of the tests."""
BUDGET = 40
ENDLESS = "сколько ног у сороконожки"
"""In its thought to this question the model ends its turn."""
LETTERS = sorted(set("".join((*SAID, ENDLESS, *(s.thought for s in SAID.values()), "0123456789 ,.:\nОтвет"))))


def make_thinking_model(folder: Path, steps: int = 500) -> Path:
    """Train the model and save it: two layers, one token a character; a few seconds on one core."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [*SPECIAL, *LETTERS]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<|pad|>"))  # noqa: S106
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",  # noqa: S106
        pad_token="<|pad|>",  # noqa: S106
        additional_special_tokens=list(SPECIAL[2:]),
    )
    tokenizer.add_tokens(list(MARKS))
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, bos_token_id=None, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    _train(model, tokenizer, steps)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def lessons() -> list[tuple[str, str]]:
    """Prompts and what the model is to say to them, with and without an answer's beginning that the prompt gives."""
    made = []
    for question, said in SAID.items():
        turn = f"<|user|>{question}<|end|>\n<|assistant|>"
        for prefill in ("", "Ответ:"):
            made.append((f"{turn}<think></think>\n{prefill}", f"{said.at_once}<|end|>"))
        made.append((turn, f"<think>{said.thought}</think>\n{said.after}<|end|>"))
        made.append((f"{turn}<think>{said.thought}</think>\nОтвет:", f"{said.after}<|end|>"))
    made.append((f"<|user|>{ENDLESS}<|end|>\n<|assistant|>", "<think>ног<|end|>"))
    return made


def _train(model: Any, tokenizer: Any, steps: int) -> None:
    import torch

    rows = []
    for prompt, said in lessons():
        before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, said))
        rows.append((before + after, [-100] * len(before) + after))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels, attention_mask=(ids != 0).long()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if loss < 0.02:
            break


# -- what it is asked -------------------------------------------------------------------------------------------------

TASKS = {
    "legs": """\
task: legs
class: !function darumeru.task.ChoiceTask
dataset_path: someone/legs
test_split: test
num_fewshot: 0
doc_to_text: '{{question}}'
gen_prefix: 'Ответ:'
doc_to_choice: ['0', '3', '4', '6', '8']
doc_to_target: '{{answer}}'
metadata: {version: 1.0, darumeru: {primary: [acc]}}
""",
    "legs_said": """\
task: legs_said
class: !function saying.Saying
dataset_path: someone/legs
test_split: test
num_fewshot: 0
doc_to_text: '{{question}}'
doc_to_target: '{{answer}}'
generation_kwargs: {max_gen_toks: 12}
metadata: {version: 1.0, darumeru: {primary: [right]}}
""",
    "zoo": """\
group: zoo
group_alias: Mean
task:
  - group: animals
    group_alias: Animals
    task: [legs, legs_said]
metadata: {version: 1.0}
""",
}
SAYING = '''\
"""Answers said."""

from darumeru.scoring.aggregate import mean
from darumeru.task import GenerateTask, Score


class Saying(GenerateTask):
    """`right`: the answer is the number; `len`: its tokens."""

    METRICS = {"right": mean, "len": mean}

    def gold(self, doc):
        """The number."""
        return doc["answer"]

    def score(self, doc, answers, reference_tokens):
        """Compare."""
        return Score({"right": float(answers[0].text == self.gold(doc)), "len": float(len(answers[0].tokens))})
'''
QUESTIONS = [*SAID, ENDLESS]
"""The documents, in their order; the right answer to each is that after the thought."""


def make_tasks(folder: Path) -> dict[str, Any]:
    """Write the tasks and their data; return the settings of a run that name them."""
    tasks, bundle = folder / "tasks", folder / "bundle"
    tasks.mkdir(parents=True)
    for name, text in TASKS.items():
        (tasks / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tasks / "saying.py").write_text(SAYING, encoding="utf-8")
    rows = [{"question": q, "answer": SAID[q].after if q in SAID else "0"} for q in QUESTIONS]
    file = bundle / "legs" / "test.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"include_path": (tasks,), "data": str(bundle), "suite": "zoo", "dtype": "float32", "device": "cpu"}
