"""Prompts: special tokens once, examples that fit, cuts that are counted, labels as they are spelled inside a text."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from darumeru.errors import UserError
from darumeru.inference.prompt import Limits, Prompter, plain_text
from darumeru.requests import Message, Query


@pytest.fixture
def chat(tiny_chat: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_chat)


@pytest.fixture
def base(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base)


def ask(text: str, prefix: str | None = "Ответ:") -> list[Message]:
    turns = [{"role": "user", "content": text}]
    return [*turns, {"role": "assistant", "content": prefix}] if prefix else turns


def shot(number: int) -> list[Message]:
    return [*ask(f"Вопрос номер {number}", None), {"role": "assistant", "content": f"Ответ: {number}"}]


def test_plain_template() -> None:
    assert plain_text(shot(1) + ask("Второй")) == (
        "Query: Вопрос номер 1\n\nResponse: Ответ: 1\n\nQuery: Второй\n\nResponse: Ответ:"
    )
    assert plain_text(ask("Текст", None)) == "Query: Текст\n\nResponse:"
    assert plain_text([{"role": "system", "content": "Кратко."}, *ask("Да?", None)]) == (
        "Кратко.\n\nQuery: Да?\n\nResponse:"
    )


def test_chat_template_leaves_the_last_turn_open(chat: Any) -> None:
    text = Prompter(chat, "instruct", Limits()).render(ask("Да?"))
    assert text == "<s><|user|>\nДа?<|end|>\n<|assistant|>\nОтвет:"
    assert Prompter(chat, "instruct", Limits()).render(ask("Да?", None)).endswith("<|end|>\n<|assistant|>\n")


@pytest.mark.parametrize("adds_bos", [True, False])
def test_never_two_bos(chat: Any, adds_bos: bool) -> None:
    from tokenizers.processors import TemplateProcessing

    if adds_bos:
        chat.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    for mode in ("instruct", "foundation"):
        prompter = Prompter(chat, mode, Limits())  # type: ignore[arg-type]
        ids = prompter.requests([("t/0/0", Query("choose", ask("Да?"), options=("1", "2")), [])])[0].prompt
        assert ids.count(chat.bos_token_id) == (1 if adds_bos or mode == "instruct" else 0)


def test_a_template_that_refuses_system_and_open_turns(chat: Any) -> None:
    chat.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no prefill') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    messages = [{"role": "system", "content": "Будь краток."}, *ask("Да?")]
    assert Prompter(chat, "instruct", Limits()).render(messages) == "[user]Будь краток.\n\nДа?[assistant]Ответ:"


def test_examples_are_left_out_one_by_one(base: Any) -> None:
    shots = [shot(i) for i in range(1, 6)]
    query = Query("choose", ask("Последний вопрос"), options=("1", "2"))
    whole = Prompter(base, "foundation", Limits(10_000)).requests([("t/0/0", query, shots)])[0]
    assert whole.num_fewshot == 5
    used = []
    for limit in range(len(whole.prompt), 20, -10):
        request = Prompter(base, "foundation", Limits(limit)).requests([("t/0/0", query, shots)])[0]
        assert len(request.prompt) <= limit
        assert request.text.count("Query:") == request.num_fewshot + 1 or request.truncated
        used.append(request.num_fewshot)
    assert used == sorted(used, reverse=True)
    assert set(used) == {0, 1, 2, 3, 4, 5}
    # The farthest from the question go first: those that stay are its nearest.
    fewer = Prompter(base, "foundation", Limits(len(whole.prompt) - 40)).requests([("t/0/0", query, shots)])[0]
    assert 0 < fewer.num_fewshot < 5
    assert fewer.text.startswith(f"Query: Вопрос номер {6 - fewer.num_fewshot}\n")
    assert "Вопрос номер 5\n\nResponse: Ответ: 5\n\nQuery: Последний вопрос\n\nResponse: Ответ:" in fewer.text


def test_a_headline_stands_once_before_the_first_turn_however_many_examples_fit(base: Any) -> None:
    shots = [shot(i) for i in range(1, 6)]
    query = Query("choose", ask("Последний вопрос"), "Вопросы по арифметике.", options=("1", "2"))
    used = set()
    for limit in range(40, 400, 20):
        request = Prompter(base, "foundation", Limits(limit)).requests([("t/0/0", query, shots)])[0]
        if request.truncated:
            continue
        used.add(request.num_fewshot)
        assert request.text.startswith("Query: Вопросы по арифметике.\n\n")
        assert request.text.count("арифметике") == 1
    assert {0, 5} <= used


def test_a_prompt_too_long_is_cut_on_the_left_behind_bos(chat: Any) -> None:
    query = Query("choose", ask("очень " * 200 + "длинный конец"), options=("1", "2"))
    request = Prompter(chat, "instruct", Limits(50)).requests([("t/0/0", query, [])])[0]
    assert len(request.prompt) == 50
    assert request.prompt[0] == chat.bos_token_id
    assert request.text.endswith("длинный конец<|end|>\n<|assistant|>\nОтвет:")
    whole = Prompter(chat, "instruct", Limits(10_000)).requests([("t/0/0", query, [])])[0]
    assert request.truncated == len(whole.prompt) - 50


def test_earlier_turns_are_dropped_oldest_first(chat: Any) -> None:
    turns = [f"реплика номер {i}" for i in range(30)]

    def dropped(count: int) -> list[Message]:
        return ask("\n".join(turns[count:]) + "\nвопрос")

    query = Query("choose", dropped(0), options=("1", "2"), droppable=30, dropped=dropped)
    request = Prompter(chat, "instruct", Limits(200)).requests([("t/0/0", query, [])])[0]
    assert request.truncated == 0
    assert len(request.prompt) <= 200
    kept = request.text.count("реплика")
    assert 0 < kept < 30
    assert f"реплика номер {30 - kept}" in request.text
    longer = Prompter(chat, "instruct", Limits(10_000)).render(dropped(30 - kept - 1))
    assert len(chat(longer, add_special_tokens=False)["input_ids"]) > 200, "one more turn would have fitted"


def test_labels_have_both_spellings_as_tokens(base: Any) -> None:
    prompter = Prompter(base, "foundation", Limits())
    for label in ("1", "A", "Да"):
        spellings = prompter.spellings(label)
        assert len(spellings) == 2
        assert [base.decode(s) for s in spellings] == [label, " " + label]
        for spelling in spellings:
            inside = base("Ответ:" + base.decode(spelling), add_special_tokens=False)["input_ids"]
            assert tuple(inside[-len(spelling) :]) == spelling


def test_ranked_sentences_are_cut_to_the_shortest(base: Any) -> None:
    query = Query("rank", ask("текст", "Главное:"), options=("Кот.", "Собака бежит по длинной улице."))
    request = Prompter(base, "foundation", Limits()).requests([("t/0/0", query, [])])[0]
    short, long = request.continuations
    assert len(short) == len(long)
    assert base.decode(short) == " Кот."
    assert " Собака бежит по длинной улице.".startswith(base.decode(long).rstrip("�"))


def test_instruct_needs_a_template(base: Any) -> None:
    with pytest.raises(UserError, match="--mode foundation"):
        Prompter(base, "instruct", Limits())


def test_an_answer_leaves_room_for_the_prompt(base: Any) -> None:
    query = Query("generate", ask("слово " * 500, None), max_tokens=900)
    request = Prompter(base, "foundation", Limits(4096, context_len=1000)).requests([("t/0/0", query, [])])[0]
    assert len(request.prompt) + request.max_tokens <= 1000
    assert len(request.prompt) >= 500
