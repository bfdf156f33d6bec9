"""A model that thinks before it answers still opens and closes its thought in another vocabulary and after calibration."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from darumeru.errors import DarumeruError, UserError
from darumeru.inference.prompt import Limits, Prompter
from lep.calibration import calibrate, make_data
from lep.calibration.chat import Example, Writers, render
from lep.initialisation.job import initialise
from lep.propagation.job import propagate
from lep.vocab.commands import extend_vocabulary
from support.chats import chat, learned, rendered
from support.lep_models import ARCHITECTURES, ENGLISH, RUSSIAN, add_special, save_byte_level

CONTROLS = ("<think>", "</think>", "<|user|>", "<|assistant|>")
SWITCH = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if loop.last and m['role'] == 'assistant' %}"
    "<think>{{ m['reasoning_content'] or '' }}</think>{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
"""As Qwen3's: an answer without a thought follows an empty one."""
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


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of random weights."""
    torch.manual_seed(0)
    _, _, values = ARCHITECTURES["llama"]
    folder = tmp_path_factory.mktemp("models") / "base"
    config = transformers.LlamaConfig(**{**values, "hidden_size": 32, "vocab_size": 448})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return save_byte_level(folder, ENGLISH, 400)


@pytest.fixture(scope="module")
def instruct(base: Path) -> Path:
    """Its instruct variant, which thinks."""
    return teach_to_think(base, base.with_name("instruct"))


def test_a_propagated_model_opens_and_closes_its_thought_and_can_do_without(
    base: Path, instruct: Path, tmp_path: Path
) -> None:
    learned = {(word, True): f"<think>it is {word}</think>{word}<|end|>" for word in WORDS}
    learned |= {(word, False): f"{word}<|end|>" for word in WORDS}
    assert said(instruct) == learned  # else what follows would show nothing
    (tmp_path / "russian.txt").write_text("\n".join(RUSSIAN * 3))
    extend_vocabulary(base, [tmp_path / "russian.txt"], tmp_path / "longer", add=60)
    initialise(base, tmp_path / "longer", tmp_path / "adapted")
    for method in ("swap", "overlap", "conversion"):
        propagate(base, tmp_path / "adapted", instruct, tmp_path / method, method=method)
        assert said(tmp_path / method) == learned, method


# -- calibration ------------------------------------------------------------------------------------------------------


def test_what_qwen3_learns_is_what_it_is_asked_to_write_with_thinking_off_and_on(tokenizers_folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizers_folder / "qwen3")
    prompter = Prompter(tokenizer, "instruct", Limits(200))
    ends = frozenset({tokenizer.eos_token_id})

    def parts(messages: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
        found = render(Writers.of(tokenizer, 200), messages, ends, 200)
        examples = [e for e in found if isinstance(e, Example)]
        assert len(examples) == len(found)
        return [(tokenizer.decode(e.ids[: int(np.flatnonzero(e.trained)[0])]), learned(prompter, e)) for e in examples]

    asked = "<|im_start|>user\nКак дела?<|im_end|>\n<|im_start|>assistant\n"
    # The mark of an empty thought stands in the prompt: learned, it would teach a model that is asked to think not to.
    assert parts(chat("Как дела?", "Хорошо.")) == [(f"{asked}<think>\n\n</think>\n\n", ["Хорошо.<|im_end|>"])]
    thought = {"role": "assistant", "content": "Хорошо.", "reasoning_content": "Вежливо ответить."}
    written = ["<think>\nВежливо ответить.\n</think>\n\nХорошо.<|im_end|>"]
    assert parts([*chat("Как дела?"), thought]) == [(asked, written)]
    # The template drops thoughts out of earlier turns, so that each turn is an example, as it is asked for.
    before = f"{asked}Хорошо.<|im_end|>\n<|im_start|>user\nА погода?<|im_end|>\n<|im_start|>assistant\n"
    assert parts([*chat("Как дела?"), thought, *chat("А погода?", "Дождь.")]) == [
        (asked, written),
        (f"{before}<think>\n\n</think>\n\n", ["Дождь.<|im_end|>"]),
    ]


def test_a_thought_that_the_template_cannot_write_is_left_out_and_counted(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    folder = save_byte_level(make_model("plain", "llama", rows=448), ENGLISH, 400)
    thought = {"role": "assistant", "content": "fox", "reasoning_content": "it is"}
    assert rendered(folder, [*chat("say fox"), thought], frozenset({1})) == "thought"
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": [*chat("say fox"), thought]}) + "\n")
    with pytest.raises(UserError, match="1 with a thought that the chat template does not write"):
        calibrate(folder, tmp_path / "chats.jsonl", tmp_path / "out")


def test_calibration_leaves_the_thinking_switch_working(instruct: Path, tmp_path: Path) -> None:
    answered = [chat(f"say {word}", f"the {word}") for word in WORDS]
    thought = [[a, {**b, "reasoning_content": f"it is {b['content'][4:]}"}] for a, b in answered]
    settings: dict[str, Any] = {"recipe": "instruct", "warmup": 0.0, "batch": 6, "max_length": 64}
    both, one = tmp_path / "both.jsonl", tmp_path / "one.jsonl"
    for file, chats in ((both, answered + thought), (one, answered)):
        file.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in chats * 4))
    calibrate(instruct, both, tmp_path / "out", learning_rate=5e-3, epochs=20, **settings)
    learned_now = {(word, True): f"<think>it is {word}</think>the {word}<|end|>" for word in WORDS}
    learned_now |= {(word, False): f"the {word}<|end|>" for word in WORDS}
    assert said(tmp_path / "out") == learned_now
    # Answers alone, of which a tiny model soon says nothing else: it must not learn to leave the thought out.
    calibrate(instruct, one, tmp_path / "answers", learning_rate=1e-3, epochs=5, **settings)
    answers = said(tmp_path / "answers")
    assert all(answers[word, True].startswith("<think>it is") for word in WORDS)


def test_calibrations_data_has_thoughts_only_where_they_are_asked_for(instruct: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"say {word}\n" for word in WORDS))

    def answers(name: str, **settings: Any) -> list[dict[str, str]]:
        report = make_data(
            str(instruct), [prompts], tmp_path / f"{name}.jsonl", engine="hf", max_tokens=8,
            settings={"device": "cpu", "max_prompt_len": 32, **settings},
        )  # fmt: skip
        assert report["counts"] == {"prompts": 3}
        return [json.loads(line)["messages"][1] for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]

    plain = [{"role": "assistant", "content": word} for word in WORDS]
    assert answers("plain") == plain
    assert answers("thought", thinking="on", thinking_budget=16) == [
        {**turn, "reasoning_content": f"it is {turn['content']}"} for turn in plain
    ]
    with pytest.raises(DarumeruError, match="unfinished thoughts 3"):
        answers("cut", thinking="on", thinking_budget=2)


def test_given_answers_are_kept_without_their_thoughts(tmp_path: Path) -> None:
    given = {
        "а": "<think>\nвежливо\n</think>\n\nХорошо.",
        "б": "вежливо</think>Да.",
        "в": "<think>вежли",
        "г": "Нет <think>.",
    }
    rows = [{"messages": chat(asked, answer)} for asked, answer in given.items()]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = make_data(None, [tmp_path / "given.jsonl"], tmp_path / "out.jsonl", answers=True)
    kept = [json.loads(line)["messages"][1]["content"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kept == ["Хорошо.", "Да.", "Нет <think>."]
    assert report["counts"] == {"prompts": 4, "without_answer": 1}
