"""Thinking: whether a chat template has its model think before it answers, how it is switched, and where a thought ends.

Nothing here goes by the names of models. The template is rendered on a short conversation, with and without its switch and with
a thought in the assistant's turn; what differs tells how a thought opens and closes:

    generation prompt   <|im_start|>assistant\\n
    turn with a thought <|im_start|>assistant\\n<think>\\nTHOUGHT\\n</think>\\n\\nANSWER<|im_end|>
                                               └opening┘       └───closing──┘

A thought ends with one token, the first of the closing that the tokenizer added to its vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from darumeru.chats import chat_text, template_of
from darumeru.errors import UserError, unknown
from darumeru.requests import Answer, Message, Thinking
from darumeru.settings import ThinkingSettings

Kind = Literal["off", "on"]

_SWITCH = re.compile(r"(enable_|disable_|use_|no_)?(think|thinking|thoughts?|reason|reasoning)(_mode|_enabled)?")
"""Names of the variables of a template that may be its switch; whether one is, its rendering tells."""

_ALWAYS = frozenset(
    (
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "strftime_now",
    )
)
"""What a template is always given: no arguments of a user's."""

_QUESTION, _THOUGHT, _ANSWER = "QUESTION", "THOUGHT", "ANSWER"

_USER: dict[str, Any] = {"role": "user", "content": _QUESTION}

_TURNS: tuple[dict[str, Any], ...] = (
    *(
        {"role": "assistant", "content": _ANSWER, key: _THOUGHT}
        for key in ("reasoning_content", "reasoning", "thinking")
    ),
    {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": _THOUGHT}, {"type": "text", "text": _ANSWER}],
    },
)
"""The ways in which templates are told of a thought."""


@dataclass(frozen=True)
class Style:
    """How the turns of a model are rendered so that it thinks, or does not.

    The default is a model that does not think: its template's own ways, nothing added.
    """

    kind: Kind | None = None
    """None: the model does not think."""
    template_args: Mapping[str, Any] = field(default_factory=dict)
    """What the template is given beside the conversation."""
    opening: str = ""
    """What follows the generation prompt: off: up to where the answer begins; on: up to where the thought begins."""
    budget: int = 0
    """on: the most tokens of a thought."""
    end: str = ""
    """The text of the token that ends a thought; empty where none is known."""
    end_id: int = -1
    """Its id."""
    start_id: int | None = None
    """The token that opens a thought, if it is one."""
    resume: str = ""
    """on: what stands between the end of the thought and the answer."""

    @property
    def thinks(self) -> bool:
        """Return whether the model thinks before it answers."""
        return self.kind == "on"

    def facts(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a record states: nothing for a model that does not think and is given no arguments.

        Args:
            given: the user's arguments of the template.
        """
        facts: dict[str, Any] = {"chat_template_args": dict(given)} if given else {}
        if self.kind is None:
            return facts
        about: dict[str, Any] = {"mode": self.kind, "template_args": dict(self.template_args), "opening": self.opening}
        if self.end:
            about["end"] = self.end
        if self.thinks:
            about |= {"budget": self.budget, "resume": self.resume}
        return facts | {"thinking": about}

    def thinking(self, tokenizer: Any, prefill: str) -> Thinking:
        """Return what a request needs to be thought about first.

        Args:
            tokenizer: the model's.
            prefill: the beginning of the answer that the prompt gives.
        """
        text = self.resume + prefill
        whole: list[int] = tokenizer(self.end + text, add_special_tokens=False)["input_ids"]
        if self.end_id not in whole:  # no token of its own, and what follows is spelled together with it
            whole = [self.end_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        return Thinking(self.budget, self.end_id, tuple(whole[whole.index(self.end_id) + 1 :]), self.end + text)

    def again(self, answer: Answer) -> bool:
        """Return whether there is a second thought: one inside the first, or one in the answer itself."""
        return self.start_id in (*answer.thought_tokens, *answer.tokens) or self.end_id in answer.tokens


PLAIN = Style()


def style_of(tokenizer: Any, settings: ThinkingSettings, context_len: int | None = None, chat: bool = True) -> Style:
    """Return how a model's turns are rendered.

    Args:
        tokenizer: the model's, with its chat template.
        settings: what the user wants.
        context_len: the model's context in tokens.
        chat: whether prompts go through the chat template; without it nothing thinks.

    Raises:
        UserError: the model cannot do what is asked for, or thinks and cannot be switched off.
    """
    given = settings.chat_template_args
    if not chat or not template_of(tokenizer):
        if given:
            raise UserError("--chat-template-args belong to a chat template, and none is used here: leave them out.")
        if settings.thinking == "on":
            raise UserError("--thinking on needs a chat template, and none is used here. Use an instruct model.")
        return PLAIN
    template = Template(tokenizer, given)
    template.check_args()
    if settings.thinking == "on":
        return _on(template, settings, context_len)
    return _off(template, explicit=settings.thinking == "off")


def _off(template: Template, explicit: bool) -> Style:
    """Return the style without thoughts."""
    if not template.thinks:
        return Style(template_args=template.given)
    args = template.given | template.switched(False)
    if template.switch is None and not explicit and not template.given:
        raise UserError(
            "This model thinks before it answers, and its chat template has no switch that is known here. --thinking on lets "
            "it think; --thinking off takes it as one that answers at once; --chat-template-args KEY=VALUE sets a switch of "
            "another name."
        )
    prompt = template.prompt(args)
    opening = template.before_answer(args).removeprefix(prompt)
    if template.opens(prompt + opening):
        raise UserError(
            f"The chat template opens a thought ({_tail(prompt)}) and cannot be told not to, so --thinking off is not possible: "
            "--thinking on lets the model think."
        )
    thinking = template.given | template.switched(True)
    end = template.end(thinking)
    return Style("off", args, opening, 0, *(end or ("", -1)), start_id=template.start_id(thinking))


def _on(template: Template, settings: ThinkingSettings, context_len: int | None) -> Style:
    """Return the style with thoughts."""
    budget = settings.thinking_budget
    if context_len is not None and budget >= context_len:
        raise UserError(
            f"--thinking-budget {budget} leaves no room for prompt and answer in the model's context of {context_len:,} tokens. "
            "Give a smaller one."
        )
    args = template.given | template.switched(True)
    end = template.token(settings.think_end) if settings.think_end else template.end(args)
    if end is None and not template.thinks:
        raise UserError(
            "--thinking on is not possible: the chat template knows no thoughts. If the model thinks all the same, name the "
            "token that ends its thought with --think-end; else leave --thinking out."
        )
    if end is None:
        raise UserError(
            "--thinking on needs to know the token that ends a thought, and the chat template does not tell. Name it "
            "with --think-end."
        )
    prompt = template.prompt(args)
    if template.given and end[0] in _tail(prompt) and end[0] not in _tail(Template(template.tokenizer, {}).prompt({})):
        raise UserError(
            f"--thinking on is not possible with these --chat-template-args: the template closes the thought ({_tail(prompt)})."
        )
    opening, closing = template.thought(args)
    resume = closing.partition(end[0])[2] if end[0] in closing else ""
    return Style("on", args, opening, budget, *end, start_id=template.start_id(args), resume=resume)


class Template:
    """A tokenizer's chat template, tried out.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        given: the user's arguments of the template.
    """

    def __init__(self, tokenizer: Any, given: Mapping[str, Any]) -> None:
        self.tokenizer = tokenizer
        self.given = dict(given)
        self.added: dict[str, int] = tokenizer.get_added_vocab()

    @cached_property
    def variables(self) -> frozenset[str]:
        """The variables that the template reads and does not set before."""
        from jinja2 import meta
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import _compile_jinja_template

        source = self.tokenizer.get_chat_template()
        try:
            environment = _compile_jinja_template(source).environment
            return frozenset(meta.find_undeclared_variables(environment.parse(source)))
        except TemplateError as error:
            raise UserError(f"The chat template is no valid Jinja: {error}.") from None

    def check_args(self) -> None:
        """Refuse arguments that the template does not read.

        Raises:
            UserError: an unknown argument, or one that is the switch.
        """
        for key in self.given:
            if key in _ALWAYS or key not in self.variables:
                known = sorted(self.variables - _ALWAYS)
                raise unknown("--chat-template-args key for this model's chat template", key, known)
        switch = Template(self.tokenizer, {}).switch if self.given else None
        if switch and switch[0] in self.given:
            raise UserError(
                f"--chat-template-args {switch[0]}: this is the switch of thoughts; use --thinking on or off."
            )
        _ = self.prompt(self.given)

    def render(self, turns: list[dict[str, Any]], args: Mapping[str, Any], prompt: bool) -> str:
        """Return the text of a conversation, with a generation prompt or without."""
        return chat_text(self.tokenizer, turns, add_generation_prompt=prompt, **args)

    def prompt(self, args: Mapping[str, Any]) -> str:
        """Return the text of a question with its generation prompt.

        Raises:
            UserError: the template fails.
        """
        try:
            return self.render([_USER], args, prompt=True)
        except Exception as error:
            what = f" with {', '.join(f'{k}={v}' for k, v in args.items())}" if args else ""
            raise UserError(
                f"The model's chat template fails{what}: {str(error).strip() or type(error).__name__}."
            ) from error

    def _tried(self, turns: list[dict[str, Any]], args: Mapping[str, Any], prompt: bool) -> str | None:
        """Return the text of a conversation; None where the template does not take it."""
        try:
            return self.render(turns, args, prompt)
        except Exception:  # whatever a template raises, it does not know turns of that kind
            return None

    # -- the switch ---------------------------------------------------------------------------------------------------

    @cached_property
    def switch(self) -> tuple[str, bool] | None:
        """The variable that switches thoughts, and its value for off; None where there is none.

        Raises:
            UserError: the template fails with one of its values.
        """
        for name in sorted(self.variables - _ALWAYS - self.given.keys()):
            if not _SWITCH.fullmatch(name):
                continue
            texts = {v: self._tried([_USER], self.given | {name: v}, prompt=True) for v in (False, True)}
            if texts[False] == texts[True] or any(text and re.search("True|False", text) for text in texts.values()):
                continue
            for value, text in texts.items():
                if text is None:
                    _ = self.prompt(self.given | {name: value})  # raises
            closes = {v: not self.opens(text or "") for v, text in texts.items()}
            return name, closes[True] and not closes[False]
        return None

    def switched(self, on: bool) -> dict[str, Any]:
        """Return the switch as an argument; nothing where there is none."""
        if self.switch is None:
            return {}
        name, off = self.switch
        return {name: off != on}

    @cached_property
    def thinks(self) -> bool:
        """Whether the template has its model think, or knows thoughts that end with a token of their own."""
        if self.switch is not None or self.opens(self.prompt(self.given)):
            return True
        # A user's arguments may have switched it already.
        return self.end(self.given) is not None or self.opens(self._tried([_USER], {}, prompt=True) or "") is not None

    # -- how a thought opens and closes -------------------------------------------------------------------------------

    def thought(self, args: Mapping[str, Any]) -> tuple[str, str]:
        """Return what stands between generation prompt and thought, and between thought and answer; empty if not known."""
        prompt = self.prompt(args)
        for turn in _TURNS:
            text = self._tried([_USER, turn], args, prompt=False) or ""
            before, found, rest = text.partition(_THOUGHT)
            closing, answered, _ = rest.partition(_ANSWER)
            printed = re.search(
                "['\"]type['\"]", text
            )  # a template that knows no parts of a content writes the list down
            if found and answered and not printed:
                return before.removeprefix(prompt) if before.startswith(prompt) else "", closing
        return "", ""

    def before_answer(self, args: Mapping[str, Any]) -> str:
        """Return the text up to an answer without thought: the generation prompt, and what the template puts behind it."""
        prompt = self.prompt(args)
        text = self._tried([_USER, {"role": "assistant", "content": _ANSWER}], args, prompt=False) or ""
        before, found, _ = text.partition(_ANSWER)
        return before if found and before.startswith(prompt) else prompt

    def end(self, args: Mapping[str, Any]) -> tuple[str, int] | None:
        """Return text and id of the token that ends a thought; None where it is not known."""
        _, closing = self.thought(args)
        for text in self._tokens(closing):
            return text, self.added[text]
        if opened := self.opens(self.prompt(args)):
            return opened[1], self.added[opened[1]]
        return None

    def start_id(self, args: Mapping[str, Any]) -> int | None:
        """Return the token that opens a thought; None where it is not one of its own."""
        opening, _ = self.thought(args)
        text = opening or "".join((self.opens(self.prompt(args)) or ("",))[:1])
        return next((self.added[t] for t in self._tokens(text)), None)

    def opens(self, prompt: str) -> tuple[str, str] | None:
        """Return the tokens that open and would close a thought which a prompt leaves open; None where it does not.

        Such tokens are a pair by their spelling: `<think>` and `</think>`, `[THINK]` and `[/THINK]`.
        """
        behind = prompt.rpartition(_QUESTION)[2]
        for text in reversed(list(self._tokens(behind))):
            for closing in (f"{text[:1]}/{text[1:]}", f"{text[:2]}/{text[2:]}"):
                if closing in self.added and closing != text:
                    return text, closing
            if "/" in text:
                return None
        return None

    def token(self, text: str) -> tuple[str, int]:
        """Return a text and the id of the token that it is.

        Raises:
            UserError: it is several tokens.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UserError(
                f"--think-end '{text}' is {len(ids)} tokens of this model, and must be one: a thought's end is found by its id."
            )
        return text, ids[0]

    def _tokens(self, text: str) -> Iterator[str]:
        """Yield the added tokens in a text, in order."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        names = {id_: name for name, id_ in self.added.items()}
        yield from (names[i] for i in ids if i in names)


def split_prefill(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """Return a conversation up to its last user turn, and the beginning of the answer that it gives."""
    if messages and messages[-1]["role"] == "assistant":
        return messages[:-1], messages[-1]["content"]
    return messages, ""


def _tail(prompt: str) -> str:
    return repr(prompt.rpartition(_QUESTION)[2][-40:])
