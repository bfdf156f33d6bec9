"""A model that thinks before it answers still opens and closes its thought in another vocabulary."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from lep.initialisation.job import initialise
from lep.propagation.job import propagate
from lep.vocab.commands import extend_vocabulary
from support.lep_models import ENGLISH, RUSSIAN, add_special, save_byte_level

CONTROLS = ("<think>", "</think>", "<|user|>", "<|assistant|>")
SWITCH = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
WORDS = ("fox", "cat", "model")


def asked(tokenizer: Any, word: str, thinking: bool) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": f"say {word}"}],
        tokenize=False, add_generation_prompt=True, enable_thinking=thinking,
    )  # fmt: skip
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def teach_to_think(base: Path, folder: Path) -> Path:
    """Write an instruct variant of a base model that thinks of a word and then says it, or says it without a thought.

    Of the embeddings only the rows of control tokens are trained, as if the others had hardly moved.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    save_byte_level(folder, ENGLISH, 400)
    add_special(folder, CONTROLS)
    (folder / "chat_template.jinja").write_text(SWITCH)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model.resize_token_embeddings(448, mean_resizing=False)
    controls = torch.zeros(448, 1)
    controls[[*tokenizer.convert_tokens_to_ids(list(CONTROLS)), tokenizer.eos_token_id]] = 1
    for matrix in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
        matrix.register_hook(lambda gradient: gradient * controls)
    lessons = []
    for word in WORDS:
        for thinking in (True, False):
            prompt = asked(tokenizer, word, thinking)
            answer = f"<think>it is {word}</think>{word}<|end|>" if thinking else f"{word}<|end|>"
            lessons.append((prompt, tokenizer(answer, add_special_tokens=False)["input_ids"]))
    longest = max(len(p) + len(a) for p, a in lessons)
    ids = torch.tensor([p + a + [1] * (longest - len(p) - len(a)) for p, a in lessons])
    labels = torch.tensor([[-100] * len(p) + a + [-100] * (longest - len(p) - len(a)) for p, a in lessons])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    model.save_pretrained(folder)
    return folder


def said(folder: Path) -> dict[tuple[str, bool], str]:
    """What a model says to each word, with thinking and without."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = {}
    for word in WORDS:
        for thinking in (True, False):
            ids = torch.tensor([asked(tokenizer, word, thinking)])
            new = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=1, pad_token_id=1)
            found[word, thinking] = tokenizer.decode(new[0, ids.shape[1] :])
    return found


def test_a_propagated_model_opens_and_closes_its_thought_and_can_do_without(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    base = save_byte_level(make_model("base", "llama", rows=448, hidden_size=32, dtype="float32"), ENGLISH, 400)
    instruct = teach_to_think(base, tmp_path / "instruct")
    learned = {(word, True): f"<think>it is {word}</think>{word}<|end|>" for word in WORDS}
    learned |= {(word, False): f"{word}<|end|>" for word in WORDS}
    assert said(instruct) == learned  # else what follows would show nothing
    (tmp_path / "russian.txt").write_text("\n".join(RUSSIAN * 3))
    extend_vocabulary(base, [tmp_path / "russian.txt"], tmp_path / "longer", add=60)
    initialise(base, tmp_path / "longer", tmp_path / "adapted")
    for method in ("swap", "overlap", "conversion"):
        propagate(base, tmp_path / "adapted", instruct, tmp_path / method, method=method)
        assert said(tmp_path / method) == learned, method
