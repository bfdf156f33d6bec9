"""Chat templates of models that think: with thinking off no request is left half on, with thinking on each is thought about.

The templates are real ones: Qwen3's with its tokenizer, and those that the package trl brings, with a tokenizer of bytes and the
control tokens that they write. What is expected of them stands here, read off the templates by hand.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from darumeru.engines.base import finish
from darumeru.errors import UserError
from darumeru.inference.prompt import Limits, Prompter
from darumeru.inference.thinking import Style, style_of
from darumeru.requests import Answer, Message, Query, Request
from darumeru.settings import ThinkingSettings
from darumeru.task.suite import Catalogue

USER: Message = {"role": "user", "content": "Сколько будет 2 + 2?"}
OPEN: list[Message] = [USER, {"role": "assistant", "content": "Ответ:"}]


def thinking(mode: Any, **more: Any) -> ThinkingSettings:
    return ThinkingSettings(thinking=mode, **more)


@pytest.fixture(scope="module")
def qwen3(tokenizers_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tokenizers_folder / "qwen3")


# -- Qwen3, the whole suite -------------------------------------------------------------------------------------------

START = "<|im_start|>assistant\n"
OFF = "<think>\n\n</think>\n\n"


def all_requests(tokenizer: Any, mode: Any, fewshot: int) -> list[tuple[Query, Request]]:
    """Every request of both suites on the mini bundle, with its query."""
    style = style_of(tokenizer, thinking(mode))
    prompter = Prompter(tokenizer, "instruct", Limits(10**7), style)
    catalogue = Catalogue()
    asked = []
    for suite in ("darumeru", "darumeru-extended"):
        for name, task in catalogue.load(catalogue.suite(suite).tasks, "mini").items():
            for index, doc in enumerate(task.docs()):
                for number, query in enumerate(task.asked(doc)):
                    asked.append((f"{name}/{index}/{number}", query, task.fewshot(doc, fewshot)))
    return [(query, request) for (_, query, _), request in zip(asked, prompter.requests(asked), strict=True)]


def prefill(query: Query) -> str:
    last = query.messages[-1]
    return last["content"] if last["role"] == "assistant" else ""


@pytest.mark.parametrize("fewshot", [0, 1])
def test_not_one_request_of_the_suites_is_left_half_on(qwen3: Any, fewshot: int) -> None:
    kinds = set()
    for query, request in all_requests(qwen3, "auto", fewshot):
        assert request.text.endswith(START + OFF + prefill(query)), request.id
        assert request.text.count("<think>") == request.text.count("</think>") == 1, "none in the examples"
        assert qwen3.decode(request.prompt) == request.text
        assert request.thinking is None
        kinds.add((request.kind, bool(prefill(query))))
    assert kinds == {("choose", True), ("generate", True), ("generate", False), ("rank", True)}


@pytest.mark.parametrize("fewshot", [0, 1])
def test_every_request_of_the_suites_is_thought_about(qwen3: Any, fewshot: int) -> None:
    end = qwen3.convert_tokens_to_ids("</think>")
    for query, request in all_requests(qwen3, "on", fewshot):
        assert request.text.endswith(START + "<think>\n"), request.id
        assert "</think>" not in request.text
        assert request.text.count("<think>") == 1
        assert request.thinking is not None
        assert (request.thinking.budget, request.thinking.end) == (2048, end)
        assert qwen3.decode(request.thinking.resume) == "\n\n" + prefill(query)
        # The tokens behind the thought are those of the whole turn.
        whole = qwen3("Думаю.\n</think>\n\n" + prefill(query), add_special_tokens=False)["input_ids"]
        assert tuple(whole[whole.index(end) + 1 :]) == request.thinking.resume


def test_a_prefilled_turn_off_is_what_the_template_itself_writes(qwen3: Any) -> None:
    """The template closes a prefilled turn to thoughts by itself; a generation prompt only where it is told to."""
    prompter = Prompter(qwen3, "instruct", Limits(), style_of(qwen3, thinking("off")))
    own = qwen3.apply_chat_template(OPEN, tokenize=False, continue_final_message=True)
    assert prompter.render(OPEN) == own
    told = qwen3.apply_chat_template([USER], tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert (
        prompter.render([USER]) == told != qwen3.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    )


def test_the_context_has_room_for_prompt_thought_and_answer(qwen3: Any) -> None:
    style = style_of(qwen3, thinking("on", thinking_budget=600))
    prompter = Prompter(qwen3, "instruct", Limits(4096, context_len=1000), style)
    query = Query("generate", [{"role": "user", "content": "слово " * 900}], max_tokens=100)
    request = prompter.requests([("t/0/0", query, ())])[0]
    assert request.thinking is not None
    assert request.prompt_tokens + 600 + len(request.thinking.resume) + request.max_tokens == 1000
    assert request.max_tokens == 100
    assert request.truncated


@pytest.mark.parametrize("mode", ["off", "on"])
def test_a_thought_in_an_example_is_refused(qwen3: Any, mode: Any) -> None:
    prompter = Prompter(qwen3, "instruct", Limits(), style_of(qwen3, thinking(mode)))
    shot: list[Message] = [USER, {"role": "assistant", "content": "<think>Считаю.</think>4"}]
    with pytest.raises(UserError, match=r"An example of 't' holds '</think>', which ends a thought.*--num-fewshot 0"):
        prompter.requests([("t/0/0", Query("choose", OPEN, options=("3", "4")), (shot,))])


# -- other templates --------------------------------------------------------------------------------------------------

CONTROL = re.compile(r"<\|?/?[a-z_]+\|?>|<｜[^｜]*｜>|\[/?[A-Z_]+\]")


def with_template(source: str, *more: str) -> Any:
    """A tokenizer of bytes with a chat template, and with the control tokens that it writes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", chat_template=source)  # noqa: S106
    tokenizer.add_tokens(sorted({*CONTROL.findall(source), *more}))
    return tokenizer


def trl_template(name: str) -> str:
    spec = find_spec("trl")
    file = Path(str(spec.origin)).parent / "chat_templates" / f"{name}.jinja" if spec else None
    if file is None or not file.is_file():
        pytest.skip(f"the package trl, with its template {name}, is not installed")
    return file.read_text(encoding="utf-8")


def turn(tokenizer: Any, style: Style, messages: list[Message]) -> str:
    """What stands behind the user's words."""
    return Prompter(tokenizer, "instruct", Limits(), style).render(messages).rpartition("2 + 2?")[2]


SWITCHED = {
    # off, a generation prompt; off, a prefilled turn; on; what follows the end of the thought
    "qwen3": ("<|im_end|>\n" + START + OFF, OFF + "Ответ:", START + "<think>\n", "\n\n"),
    "qwen3_5_think": ("<|im_end|>\n" + START + OFF, OFF + "Ответ:", START + "<think>\n", "\n\n"),
    "glm4moe": ("/nothink<|assistant|>\n<think></think>\n", "</think>\nОтвет:", "<|assistant|>\n<think>", "\n"),
    "nemotron_3_nano": ("<|im_end|>\n" + START + "<think></think>", "</think>Ответ:", START + "<think>\n", "\n"),
}


@pytest.mark.parametrize("name", SWITCHED)
def test_a_template_with_a_switch(name: str) -> None:
    off, open_off, on, resume = SWITCHED[name]
    tokenizer = with_template(trl_template(name))
    style = style_of(tokenizer, thinking("auto"))
    assert (style.kind, dict(style.template_args)) == ("off", {"enable_thinking": False})
    assert turn(tokenizer, style, [USER]) == off
    assert turn(tokenizer, style, OPEN) == off + "Ответ:"
    assert turn(tokenizer, style, OPEN).endswith(open_off)
    style = style_of(tokenizer, thinking("on"))
    assert turn(tokenizer, style, OPEN).endswith(on)
    assert style.thinking(tokenizer, "Ответ:").text == f"</think>{resume}Ответ:"


def test_no_template_that_is_switched_off_leaves_a_prompt_half_on() -> None:
    trl_template("qwen3")
    folder = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
    switched = set()
    for file in sorted(folder.glob("*.jinja")):
        tokenizer = with_template(file.read_text(encoding="utf-8"))
        try:
            style = style_of(tokenizer, thinking("auto"))
        except UserError as error:
            assert "--thinking on" in str(error), file.stem
            continue
        if style.kind is None:
            continue
        switched.add(file.stem)
        begun, prefilled = (turn(tokenizer, style, messages) for messages in ([USER], OPEN))
        assert prefilled == begun + "Ответ:", file.stem
        for opening, closing in (("<think>", "</think>"), ("<|channel>", "<channel|>")):
            assert begun.count(opening) <= begun.count(closing), file.stem
    assert {"qwen3", "qwen3_5_think", "qwen3_6", "qwen3_8", "glm4moe", "nemotron_3_ultra", "gemma4_v5"} <= switched


PLAIN = ("llama3_1", "qwen2_5", "qwen3_instruct_2507", "gemma3", "phi3_5", "lfm2", "cohere2")


@pytest.mark.parametrize("name", PLAIN)
def test_a_template_that_knows_no_thoughts_is_used_as_it_was(name: str) -> None:
    tokenizer = with_template(trl_template(name))
    assert style_of(tokenizer, thinking("auto")) == style_of(tokenizer, thinking("off")) == Style()
    assert Style().facts({}) == {}
    with pytest.raises(UserError, match="the chat template knows no thoughts"):
        style_of(tokenizer, thinking("on"))


def test_channels_are_thought_in_and_answered_in() -> None:
    tokenizer = with_template(trl_template("gptoss"))
    with pytest.raises(
        UserError, match=r"thinks before it answers, and its chat template has no switch.*--thinking on"
    ):
        style_of(tokenizer, thinking("auto"))
    style = style_of(tokenizer, thinking("on"))
    assert turn(tokenizer, style, OPEN) == "<|end|><|start|>assistant<|channel|>analysis<|message|>"
    after = style.thinking(tokenizer, "Ответ:")
    assert after.end == tokenizer.convert_tokens_to_ids("<|end|>")
    assert after.text == "<|end|><|start|>assistant<|channel|>final<|message|>Ответ:"
    # Asked to answer at once, every request begins in the channel of answers, prefilled or not.
    style = style_of(tokenizer, thinking("off"))
    final = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert turn(tokenizer, style, [USER]) == final
    assert turn(tokenizer, style, OPEN) == final + "Ответ:"


def test_a_template_that_always_opens_a_thought() -> None:
    tokenizer = with_template(trl_template("deepseek_r1_distill"))
    for mode in ("auto", "off"):
        with pytest.raises(UserError, match="--thinking on"):
            style_of(tokenizer, thinking(mode))
    style = style_of(tokenizer, thinking("on"))
    assert (style.opening, style.end) == ("", "</think>"), "its pair, by the spelling"
    assert turn(tokenizer, style, OPEN).endswith("<think>\n")


MAGISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST]{{ m['content'] }}[/INST]{% else %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'thinking' %}[THINK]{{ c['thinking'] }}[/THINK]{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ eos_token }}{% endif %}{% endfor %}"
)
INVERTED = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if disable_thinking %}<think></think>{% else %}<think>{% endif %}{% endif %}"
)
LEVELS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if thinking_mode == 'chat' %}</think>{% else %}<think>{% endif %}{% endif %}"
)


def test_thoughts_as_parts_of_a_content() -> None:
    tokenizer = with_template(MAGISTRAL)
    style = style_of(tokenizer, thinking("on"))
    assert turn(tokenizer, style, OPEN) == "[/INST][THINK]"
    assert style.thinking(tokenizer, "Ответ:").text == "[/THINK]Ответ:"
    with pytest.raises(UserError, match="no switch that is known here"):
        style_of(tokenizer, thinking("auto"))
    assert turn(tokenizer, style_of(tokenizer, thinking("off")), OPEN) == "[/INST]Ответ:"


def test_a_switch_that_is_on_for_off() -> None:
    tokenizer = with_template(INVERTED)
    style = style_of(tokenizer, thinking("auto"))
    assert dict(style.template_args) == {"disable_thinking": True}
    assert turn(tokenizer, style, OPEN) == "<|assistant|><think></think>Ответ:"
    assert turn(tokenizer, style_of(tokenizer, thinking("on")), OPEN) == "<|assistant|><think>"


def test_a_switch_of_another_kind_is_given_by_hand() -> None:
    tokenizer = with_template(LEVELS)
    with pytest.raises(UserError, match="--chat-template-args KEY=VALUE sets a switch"):
        style_of(tokenizer, thinking("auto"))
    style = style_of(tokenizer, thinking("auto", chat_template_args={"thinking_mode": "chat"}))
    assert turn(tokenizer, style, OPEN) == "<|assistant|></think>Ответ:"
    assert style.facts({"thinking_mode": "chat"})["chat_template_args"] == {"thinking_mode": "chat"}
    with pytest.raises(
        UserError, match=r"--thinking on is not possible with these .*: the template closes the thought"
    ):
        style_of(tokenizer, thinking("on", think_end="</think>", chat_template_args={"thinking_mode": "chat"}))
    with pytest.raises(
        UserError, match=r"disable_thinking: this is the switch of thoughts; use --thinking on or off\."
    ):
        style_of(with_template(INVERTED), thinking("auto", chat_template_args={"disable_thinking": True}))


def test_a_template_that_fails_with_its_switch_is_named() -> None:
    source = INVERTED.replace("disable_thinking", "enable_thinking").replace(
        "<think></think>", "{{ raise_exception('no thoughts today') }}"
    )
    tokenizer = with_template(source)
    with pytest.raises(UserError, match=r"chat template fails with enable_thinking=True: no thoughts today"):
        style_of(tokenizer, thinking("auto"))


def test_an_end_that_the_template_does_not_tell() -> None:
    tokenizer = with_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "</think>")
    with pytest.raises(UserError, match="knows no thoughts"):
        style_of(tokenizer, thinking("on"))
    style = style_of(tokenizer, thinking("on", think_end="</think>"))
    assert turn(tokenizer, style, OPEN) == "\n"
    assert style.thinking(tokenizer, "Ответ:").text == "</think>Ответ:"
    with pytest.raises(UserError, match=r"--think-end '</thought>' is 10 tokens of this model, and must be one"):
        style_of(tokenizer, thinking("on", think_end="</thought>"))


# -- where a thought ends, and a second one ---------------------------------------------------------------------------


def test_the_end_is_found_by_its_id_and_stays(qwen3: Any) -> None:
    end, eos = qwen3.convert_tokens_to_ids("</think>"), qwen3.eos_token_id
    spelled = qwen3("Пишу < /think> словами", add_special_tokens=False)["input_ids"]
    request = Request("t/0/0#thought", "generate", (1,), "", max_tokens=50, stop=end)
    ended = finish(request, [*spelled, end, 5, 6], {eos}, qwen3)
    assert (ended.tokens, ended.finish) == ((*spelled, end), "stop")
    stopped = finish(request, [*spelled, eos, end], {eos}, qwen3)
    assert (stopped.tokens, stopped.finish) == (tuple(spelled), "stop"), (
        "the model ended its turn: no end of the thought"
    )


def test_a_second_thought_is_noticed(qwen3: Any) -> None:
    style = style_of(qwen3, thinking("off"))
    start, end = (qwen3.convert_tokens_to_ids(t) for t in ("<think>", "</think>"))
    assert not style.again(Answer("t", tokens=(5, 6)))
    assert style.again(Answer("t", tokens=(start, 5))), "switched off, and thinks"
    assert not style.again(Answer("t", thought_tokens=(5, end), tokens=(6,)))
    assert style.again(Answer("t", thought_tokens=(5, start, 6, end), tokens=(6,))), "nested"
    assert style.again(Answer("t", thought_tokens=(5, end), tokens=(6, end))), "closed twice"
    assert not Style().again(Answer("t", tokens=(start, end)))


def test_a_watch_finds_the_evaluations_of_an_older_version() -> None:
    """What is asked of a checkpoint is told by a fingerprint, made here before there was thinking."""
    from darumeru.evaluation import asked, settings_of

    settings = {"model": "x", "suite": "darumeru-train", "engine": "hf", "limit": 3}
    assert asked(settings_of(**settings)) == "dee664b16a1afa5c7c3bf2a8c66405c68863864b7884ba93c5b8b71a42ee4f44"
    assert asked(settings_of(**settings, thinking="off")) != asked(settings_of(**settings))
