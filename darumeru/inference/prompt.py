"""Prompts: messages → token ids for one model, with few-shot examples that fit and labels as token sequences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any, Literal

from darumeru.chats import chat_text, template_of
from darumeru.errors import UserError
from darumeru.inference.prefixes import Prompt, SharedPrefixes
from darumeru.inference.thinking import PLAIN, Style, split_prefill
from darumeru.requests import Message, PackedTokens, Query, Request, Tokens, thinking_tokens

Mode = Literal["instruct", "foundation"]

FOUNDATION_STOP = "\n\n"
"""A blank line ends an answer of a base model: the few-shot examples before it end so."""
FOUNDATION_TURN = "\n\nQuery:"
"""The same for tasks whose answers may hold blank lines: the prefix of the next example."""

# Texts after which a label or a sentence is tokenized to see how it is spelled inside a text. An answer usually follows
# a colon; the others serve tokenizers that would merge the colon with what follows.
_ANCHORS = (":", "\n", "=", "a")

_PART = 512
"""So many prompts are tokenized together: the tokenizer's threads are busy, and little waits to be packed."""


def plain_text(messages: Sequence[Message]) -> str:
    """Return a conversation as base models get it: `Query: …` and `Response: …`, a blank line between any two turns."""
    names = {"user": "Query:", "assistant": "Response:", "system": ""}
    turns = [" ".join(filter(None, (names[m["role"]], m["content"]))) for m in messages]
    return "\n\n".join(turns if messages[-1]["role"] == "assistant" else [*turns, names["assistant"]])


def conversation(query: Query, shots: Sequence[Sequence[Message]] = ()) -> list[Message]:
    """Return the turns of a prompt: the examples in their order, then the question.

    A headline stands once, in the first user turn, and a system turn once, before everything.
    """
    turns = [message for shot in shots for message in shot] + query.messages
    if query.headline:
        first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
        turns[first] = {**turns[first], "content": f"{query.headline}\n\n{turns[first]['content']}"}
    return [{"role": "system", "content": query.system}, *turns] if query.system else turns


@dataclass(frozen=True)
class Limits:
    """Limits of prompts and answers, in tokens."""

    max_prompt_len: int = 4096
    context_len: int | None = None
    """The model's context; a prompt leaves room for its answer in it."""

    def prompt(self, answer_tokens: int, thought: int = 0) -> int:
        """Return the longest prompt that leaves room for an answer, which may claim half of the context at most.

        Args:
            answer_tokens: of the answer.
            thought: of the context, tokens for a thought before it.
        """
        if self.context_len is None:
            return self.max_prompt_len
        context = self.context_len - thought
        return min(self.max_prompt_len, context - min(answer_tokens, context // 2))

    def answer(self, prompt_tokens: int, max_tokens: int, thought: int = 0) -> int:
        """Return the longest answer that fits behind a prompt, and a thought."""
        if self.context_len is None:
            return max_tokens
        return min(max_tokens, self.context_len - thought - prompt_tokens)


class Prompter:
    """Turns queries into requests for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer.
        mode: `instruct` uses the tokenizer's chat template, `foundation` the plain one.
        limits: how long prompts may be.
        style: how turns are rendered for a model that can think.

    Raises:
        UserError: `instruct` is asked for, but the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, mode: Mode, limits: Limits, style: Style = PLAIN) -> None:
        if mode == "instruct" and not template_of(tokenizer):
            raise UserError(
                "Mode 'instruct' needs a chat template, and this tokenizer has none. "
                "Use --mode foundation, or add a chat_template.jinja to the model folder."
            )
        self.tokenizer = tokenizer
        self.mode: Mode = mode
        self.limits = limits
        self.style = style
        self._spelled = lru_cache(maxsize=100_000)(self._spell)
        self._thinking = lru_cache(maxsize=1000)(partial(style.thinking, tokenizer))
        self._prefixes = SharedPrefixes(tokenizer, self.encode)

    # -- text ---------------------------------------------------------------------------------------------------------

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt text of a conversation; a last assistant turn is left open for the model to continue.

        For a model that thinks the text ends where the thought begins, and the last turn's words follow the thought.
        """
        if self.mode == "foundation":
            return plain_text(messages)
        if self.style.kind is not None:
            # Whatever the template makes of an open turn: thinking on or off is decided by its generation prompt.
            turns, prefill = split_prefill(messages)
            return self._turns(turns) + self.style.opening + ("" if self.style.thinks else prefill)
        return self._turns(messages)

    def _turns(self, messages: Sequence[Message]) -> str:
        open_turn = messages[-1]["role"] == "assistant"
        try:
            return self._template(messages, open_turn)
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("jinja2", "builtins"):
                raise
            # Some templates refuse a system turn, some an unfinished assistant turn: say the same without them.
            merged = _merge_system(messages)
            if open_turn:
                return self._template(merged[:-1], False) + merged[-1]["content"]
            return self._template(merged, False)

    def finished(self, messages: Sequence[Message]) -> str:
        """Return the text of a conversation whose last turn, the assistant's, is complete: what a model is trained on."""

        def closed(turns: Sequence[Message]) -> str:
            return chat_text(self.tokenizer, turns, **self.style.template_args)

        try:
            return closed(messages)
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("jinja2", "builtins"):
                raise
            return closed(_merge_system(messages))

    def _template(self, messages: Sequence[Message], open_turn: bool) -> str:
        return chat_text(
            self.tokenizer,
            messages,
            add_generation_prompt=not open_turn,
            continue_final_message=open_turn,
            **self.style.template_args,
        )

    # -- tokens -------------------------------------------------------------------------------------------------------

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Return the token ids of whole prompts. Chat templates write their own special tokens; none is ever added twice."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=self.mode == "foundation", return_attention_mask=False
        )["input_ids"]
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        for row in ids:
            if bos is not None and row[:2] == [bos, bos]:
                del row[0]
            if self.mode == "foundation" and eos is not None and len(row) > 1 and row[-1] == eos != bos:
                del row[-1]  # a tokenizer that closes every text would end the answer before it begins
        return ids

    def tokenize(self, texts: Sequence[str], keys: Sequence[tuple[str, ...]]) -> list[Prompt]:
        """Return whole prompts with exactly the tokens of `encode`; those with equal keys begin alike, and share that."""
        return self._prefixes.prompts(texts, keys)

    def continuation(self, text: str) -> Tokens:
        """Return the tokens of `text` as they come inside a text: no sentence-initial space, no special tokens."""
        return self._spelled(text)

    def _spell(self, text: str) -> Tokens:
        for anchor, before in self._anchors.items():
            whole = self.tokenizer(anchor + text, add_special_tokens=False)["input_ids"]
            if len(whole) > len(before) and whole[: len(before)] == before:
                return tuple(whole[len(before) :])
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _anchors(self) -> dict[str, list[int]]:
        return {anchor: self.tokenizer(anchor, add_special_tokens=False)["input_ids"] for anchor in _ANCHORS}

    def whole(self, text: str) -> Tokens:
        """Return the tokens of `text` as a text of its own, without special tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def first_token(self) -> int:
        """The token that a text without context follows: BOS, else EOS."""
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    def spellings(self, label: str) -> tuple[Tokens, ...]:
        """Return the token sequences of a label without and with a leading space; equal ones once."""
        return tuple(dict.fromkeys((self.continuation(label), self.continuation(" " + label))))

    # -- requests -----------------------------------------------------------------------------------------------------

    def requests(self, queries: Iterable[tuple[str, Query, Sequence[Sequence[Message]]]]) -> list[Request]:
        """Return the requests for (id, query, few-shot conversations), in order.

        As many of the few-shot conversations as fit are put before the query, in their order; those that are farthest from
        it are left out first. A prompt that is too long without any is cut on its left, behind the BOS token.
        """
        todo = iter(queries)
        requests: list[Request] = []
        while part := list(islice(todo, _PART)):
            requests += self._requests(part)
        return requests

    def _requests(self, todo: Sequence[tuple[str, Query, Sequence[Sequence[Message]]]]) -> list[Request]:
        conversations = [conversation(query, shots) for _, query, shots in todo]
        prompts = self._prompts(
            [(messages, query) for messages, (_, query, _) in zip(conversations, todo, strict=True)]
        )
        _check_examples(todo, self.style)
        requests = []
        for (id_, query, shots), messages, prompt in zip(todo, conversations, prompts, strict=True):
            request = Request(id_, query.kind, (), "", num_fewshot=len(shots), messages=tuple(messages))
            request = self._complete(request, query)
            if not query.messages:
                # A text of its own follows what the model takes for the start of a text.
                prompt = Prompt("", PackedTokens.of([self.first_token]))
            elif self.style.thinks:
                _check_asks(request)
                request = replace(request, thinking=self._thinking(split_prefill(query.messages)[1]))
            thought = thinking_tokens(request)
            limit = self.limits.prompt(_answer_tokens(request), thought)
            if len(prompt.tokens) > limit:
                prompt, request = self._fit(query, shots, limit, request)
            room = self.limits.answer(len(prompt.tokens), request.max_tokens, thought)
            requests.append(replace(request, prompt=prompt.tokens, text=prompt.text, max_tokens=room))
        return requests

    def _prompts(self, asked: Sequence[tuple[Sequence[Message], Query]]) -> list[Prompt]:
        """Return the prompts of conversations that end in a query; those with the same examples before it begin alike."""
        texts = [self.render(messages) if messages else "" for messages, _ in asked]
        examples = [messages[: max(0, len(messages) - len(query.messages))] for messages, query in asked]
        return self.tokenize(texts, [tuple(m["content"] for m in shown) for shown in examples])

    def _fit(
        self, query: Query, shots: Sequence[Sequence[Message]], limit: int, request: Request
    ) -> tuple[Prompt, Request]:
        """Return the prompt with fewer examples, fewer earlier turns or, at last, truncated on the left."""
        for count in range(len(shots) - 1, -1, -1):
            messages = conversation(query, shots[len(shots) - count :])
            [prompt] = self._prompts([(messages, query)])
            if len(prompt.tokens) <= limit:
                return prompt, replace(request, num_fewshot=count, messages=tuple(messages))
        if not shots:
            [prompt] = self._prompts([(conversation(query), query)])
        request = replace(request, num_fewshot=0)
        if query.dropped is not None:
            # The prompt shrinks with every dropped piece: the fewest to drop is found by bisection.
            def shorter(count: int) -> tuple[list[Message], Query]:
                fewer = replace(query, messages=query.dropped(count)) if query.dropped else query
                return conversation(fewer), fewer

            low, high = 1, query.droppable
            while low < high:
                middle = (low + high) // 2
                if len(self._prompts([shorter(middle)])[0].tokens) <= limit:
                    high = middle
                else:
                    low = middle + 1
            messages, fewer = shorter(high)
            [prompt] = self._prompts([(messages, fewer)])
            if len(prompt.tokens) <= limit:
                return prompt, replace(request, messages=tuple(messages))
        ids = list(prompt.tokens.tokens())
        bos = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
        kept = bos + ids[len(ids) - (limit - len(bos)) :]
        cut = Prompt(self.tokenizer.decode(kept), PackedTokens.of(kept))
        return cut, replace(request, truncated=len(ids) - len(kept), messages=())

    def _complete(self, request: Request, query: Query) -> Request:
        """Return `request` with its options as tokens."""
        if query.kind == "choose":
            return replace(request, labels=tuple(self.spellings(label) for label in query.options))
        if query.kind == "rank":
            whole = [self._spell(" " + option) for option in query.options]
            shortest = min(map(len, whole))
            return replace(request, continuations=tuple(tokens[:shortest] for tokens in whole))
        if query.kind == "likelihood":
            spelled = [self.continuation(" " + o) if query.messages else self.whole(o) for o in query.options]
            return replace(request, continuations=tuple(spelled), reference_tokens=len(spelled[0]))
        until = query.until or ((FOUNDATION_STOP,) if self.mode == "foundation" else ())
        if self.mode == "instruct":
            until = ()  # an instruct model ends its turn by itself
        count = len(self._spell(" " + query.reference)) if query.reference is not None else None
        return replace(request, max_tokens=query.max_tokens, until=until, reference_tokens=count)


def _answer_tokens(request: Request) -> int:
    if request.kind == "generate":
        return request.max_tokens
    sequences = request.continuations or tuple(s for label in request.labels for s in label)
    return max(map(len, sequences))


def _check_asks(request: Request) -> None:
    """Refuse what no model can think about.

    Raises:
        UserError: the answer is given.
    """
    if request.kind == "likelihood":
        raise UserError(
            f"'{request.id.rsplit('/', 2)[0]}' asks for the likelihood of a given text, which is not thought about: use "
            "--thinking off, or leave it out with --tasks."
        )


def _check_examples(todo: Iterable[tuple[str, Query, Sequence[Sequence[Message]]]], style: Style) -> None:
    """Refuse thoughts in examples, which templates leave out or take for the model's own.

    Raises:
        UserError: an example holds the end of a thought.
    """
    if not style.end:
        return
    for id_, _, shots in todo:
        if any(style.end in message["content"] for shot in shots for message in shot):
            raise UserError(
                f"An example of '{id_.rsplit('/', 2)[0]}' holds '{style.end}', which ends a thought: examples show answers "
                "without thoughts. Use --num-fewshot 0, or take the thought out of the data."
            )


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    """Return the same conversation with system turns put before the user turn that follows them."""
    merged: list[Message] = []
    system = ""
    for message in messages:
        if message["role"] == "system":
            system += message["content"] + "\n\n"
        elif message["role"] == "user" and system:
            merged.append({"role": "user", "content": system + message["content"]})
            system = ""
        else:
            merged.append(dict(message))
    return merged
