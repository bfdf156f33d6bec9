"""The interface of engines and their common parts: labels as a tree of tokens, where an answer ends, lm-eval's interface."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

from lm_eval.api.model import LM

from darumeru.chats import chat_text
from darumeru.errors import DarumeruError, UserError, unknown
from darumeru.requests import Answer, Kind, Request, Tokens

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Server:
    """A model that is served elsewhere: what the api engine asks, and how exact its answers must be."""

    base_url: str
    model: str
    """The name under which the server offers the model."""
    aliases: tuple[str, ...] = ()
    """Other names under which it may."""
    api_key_env: str | None = None
    """The environment variable that holds the API key; the key itself is kept nowhere."""
    approximate: bool = False
    """Whether numbers are accepted that are not exactly the model's."""
    others: tuple[str, ...] = ()
    """Addresses of further servers of the same model. They decide nothing: each has to prove that it has it."""


class ServerSettings(Protocol):
    """What an engine must know of a user's settings to find its server, or to refuse one."""

    @property
    def base_url(self) -> str | tuple[str, ...] | None:
        """The server's address, or several."""

    @property
    def api_key_env(self) -> str | None:
        """See `Server.api_key_env`."""

    @property
    def served_model(self) -> str | None:
        """See `Server.model`."""

    @property
    def approximate(self) -> bool:
        """See `Server.approximate`."""

    @property
    def dtype(self) -> str:
        """See `EngineOptions.dtype`."""

    @property
    def device(self) -> Device:
        """See `EngineOptions.device`."""

    @property
    def model_args(self) -> dict[str, Any]:
        """See `EngineOptions.model_args`."""


@dataclass(frozen=True)
class EngineOptions:
    """How to load a model."""

    dtype: str = "auto"
    device: Device = "auto"
    seed: int = 0
    trust_remote_code: bool = False
    max_len: int = 4096
    """The longest prompt with its answer that will be asked for, in tokens."""
    context_len: int | None = None
    """The model's context in tokens, if it says."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """What only this engine knows, e.g. `tensor_parallel_size` of vLLM."""
    adapter: Path | None = None
    """Folder of a LoRA adapter to apply."""
    exact: bool = False
    """Give up speed for numbers that repeat bit by bit on one machine: no shared prefixes, fixed batches."""
    server: Server | None = None
    """The server to ask, for an engine that needs one."""
    tokenizer_path: Path | None = None
    """The tokenizer's folder, where it is not the model's; for an engine that loads a tokenizer of its own."""
    template_args: dict[str, Any] = field(default_factory=dict)
    """What the chat template is given beside the conversation; for a server that renders it itself."""
    thought_opening: str = ""
    """What such a server leaves to the model to write where our prompts write it: the opening of its thought."""


class Engine(LM):  # type: ignore[misc]
    """A loaded model that answers requests.

    It is also an lm-eval `LM`, so that stock lm-eval tasks run on it: `lm_eval.simple_evaluate(model=engine, …)`.
    """

    name: ClassVar[str] = ""
    """As users and records call it; that of its module, or of its entry point."""
    distributions: ClassVar[tuple[str, ...]] = ()
    """The packages that compute, the first installed one's version goes into the record."""
    auto_priority: ClassVar[int | None] = None
    """`--engine auto` takes the available engine with the highest one; None: only where it is asked for."""
    needs_server: ClassVar[bool] = False
    """Whether a server has the weights, so that the model's folder needs none."""
    interleaves: ClassVar[bool] = False
    """Whether it works on all requests at once, so that the time between two answers is not the time of the second."""
    follows: bool = False
    """Whether `answers` takes `follow: Callable[[Answer], Request | None]`, which gives the request that follows an answer, and
    answers that one too; others are asked again."""
    thinks: bool = False
    """Whether it takes a request with its thinking and gives thought and answer at once; others get a request for each."""
    tokenizer: Any
    eos_ids: frozenset[int]

    # -- what is known before a model is loaded -------------------------------------------------------------------------

    @classmethod
    def available(cls) -> bool:
        """Return whether what it needs is installed here."""
        return True

    @classmethod
    def computes_on(cls, device: Device) -> bool:
        """Return whether it can compute on a device as it is installed here; `auto` takes it for no other one."""
        return True

    @classmethod
    def version(cls) -> str:
        """Return package and version, for the identity of a run; the name where no package is known."""
        for distribution in cls.distributions:
            try:
                return f"{distribution} {version(distribution)}"
            except PackageNotFoundError:
                continue
        return cls.name

    @classmethod
    def known_args(cls) -> Collection[str]:
        """Return the keys of `--model-args` that it takes."""
        return ()

    @classmethod
    def check_args(cls, model_args: Mapping[str, Any]) -> None:
        """Refuse `--model-args` that it does not take.

        Raises:
            UserError: an unknown key.
        """
        known = cls.known_args() if model_args else ()
        for key in model_args:
            if key not in known:
                raise unknown(f"--model-args key for the {cls.name} engine", key, known)

    @classmethod
    def spread(cls, devices: int) -> dict[str, Any]:
        """Return the `--model-args` that spread a model over so many devices of one machine.

        Raises:
            UserError: it computes on one.
        """
        raise UserError(f"--devices-per-worker {devices}: the {cls.name} engine computes on one device.")

    @classmethod
    def server_of(cls, settings: ServerSettings) -> Server | None:
        """Return the server that the settings name; its `model` is empty where they name none.

        Raises:
            UserError: the engine needs a server and gets no usable one, or needs none and gets one.
        """
        given = {
            "--base-url": settings.base_url,
            "--api-key-env": settings.api_key_env,
            "--served-model": settings.served_model,
            "--approximate": settings.approximate,
        }
        for option, value in given.items():
            if value:
                raise UserError(f"{option} belongs to a server: it needs --engine api.")
        return None

    @classmethod
    def load(cls, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> Self:
        """Load a model.

        Args:
            model: its folder.
            tokenizer: its tokenizer.
            eos_ids: the tokens that end an answer.
            options: how to load it.

        Raises:
            UserError: the engine is not installed, or the options ask for what it cannot do.
            DarumeruError: the model cannot be loaded.
        """
        return cls(model, tokenizer, eos_ids, options)

    # -- a loaded model -------------------------------------------------------------------------------------------------

    @abstractmethod
    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        """Answer requests, in any order, a few at a time, as soon as they are known.

        Args:
            requests: all requests of the run, so that batches do not depend on where an earlier run stopped.
            done: ids of requests that need no answer any more.
        """

    def check_kinds(self, kinds: Collection[Kind]) -> None:
        """Refuse kinds of requests that it cannot answer; said before the first is asked, whose thought may take long.

        Raises:
            UserError: it cannot answer one of them.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Name, versions, data type and device, for the record."""

    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- lm-eval ------------------------------------------------------------------------------------------------------

    @property
    def longest(self) -> int | None:
        """The most tokens that a prompt may have with its answer, as far as it is known."""
        options: EngineOptions | None = getattr(self, "options", None)
        return options.context_len if options else None

    def _ask(self, requests: list[Request]) -> list[Answer]:
        found = {a.id: a for batch in self.answers(requests) for a in batch}
        if fault := next((a.error for a in found.values() if a.error), None):
            raise DarumeruError(
                f"The {self.name} engine cannot answer: {fault}."
            )  # lm-eval would take it for an answer
        return [found[r.id] for r in requests]

    def _encode(self, text: str, special: bool) -> list[int]:
        """The text's tokens; a chat template has written BOS itself."""
        begun = text.startswith(self.tokenizer.bos_token or "\0")
        ids: list[int] = self.tokenizer(text, add_special_tokens=special and not begun)["input_ids"]
        return ids

    def _cut(self, prompt: list[int], answer: int) -> Tokens:
        """The end of a prompt that leaves room for an answer of so many tokens, as lm-eval's HFLM cuts it."""
        return tuple(prompt if self.longest is None else prompt[-max(1, self.longest - answer) :])

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Sum of the continuation's log-probabilities and whether it is the greedy one. See lm-eval."""
        asked = []
        for index, instance in enumerate(requests):
            context, continuation = instance.args
            # Trailing spaces belong to the continuation, as in lm-eval.
            stripped = context.rstrip()
            continuation, context = context[len(stripped) :] + continuation, stripped
            whole = self._encode(context + continuation, True)
            prompt = self._encode(context, True) or [self.prefix_token]
            if whole[: len(prompt)] != prompt:
                whole = prompt + self._encode(continuation, False)
            tail = tuple(whole[len(prompt) :])
            asked.append(
                Request(str(index), "likelihood", self._cut(prompt, len(tail)), context, continuations=(tail,))
            )
        return [(a.logprobs[0], a.greedy[0]) for a in self._ask(asked)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Log-probability of whole texts, each from the prefix token on, in windows as wide as the context. See lm-eval."""
        from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

        asked: list[Request] = []
        owner = []
        for index, instance in enumerate(requests):
            ids = self._encode(instance.args[0], False)
            width = len(ids) if self.longest is None else self.longest - 1
            for window in get_rolling_token_windows(ids, self.prefix_token, max(width, 1), 1):
                before, tail = map(tuple, make_disjoint_window(window))
                asked.append(Request(str(len(asked)), "likelihood", before, "", continuations=(tail,)))
                owner.append(index)
        sums = [0.0] * len(requests)
        for index, answer in zip(owner, self._ask(asked), strict=True):
            sums[index] += answer.logprobs[0]
        return sums

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Greedy texts that carry their token ids. See lm-eval."""
        asked = []
        for index, instance in enumerate(requests):
            context, arguments = instance.args
            if arguments.get("do_sample") or float(arguments.get("temperature", 0) or 0) > 0:
                raise UserError("Darumeru's engines generate greedily; do_sample and temperature are not available.")
            until = arguments.get("until") or []
            until = (until,) if isinstance(until, str) else tuple(until)
            most = int(arguments.get("max_gen_toks", 256))
            prompt = self._cut(self._encode(context, True), most)
            asked.append(Request(str(index), "generate", prompt, context, max_tokens=most, until=until))
        return [GeneratedText(a.text, a.tokens) for a in self._ask(asked)]

    @property
    def prefix_token(self) -> int:
        """The token that a text without context follows: BOS, else EOS."""
        bos = self.tokenizer.bos_token_id
        return int(bos if bos is not None else self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """See lm-eval."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """See lm-eval."""
        return chat_text(
            self.tokenizer,
            chat_history,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )


class GeneratedText(str):
    """A generated text that remembers its tokens; lm-eval's filters keep it as it is."""

    token_ids: Tokens

    def __new__(cls, text: str, token_ids: Tokens) -> GeneratedText:
        """A text with its tokens."""
        self = super().__new__(cls, text)
        self.token_ids = token_ids
        return self


# -- labels -----------------------------------------------------------------------------------------------------------


def label_tree(labels: Sequence[Sequence[Tokens]]) -> dict[Tokens, tuple[int, ...]]:
    """The questions that give the probability of every label.

    Args:
        labels: for each label its spellings as token sequences.

    Returns:
        For each proper prefix of a spelling, the empty one first, the tokens whose probability after it is wanted. Where
        every spelling is one token there is one prefix, the empty one, and one forward pass answers all.
    """
    tree: dict[Tokens, set[int]] = {}
    for spelling in (s for label in labels for s in label):
        for depth, token in enumerate(spelling):
            tree.setdefault(spelling[:depth], set()).add(token)
    return {prefix: tuple(sorted(tree[prefix])) for prefix in sorted(tree, key=lambda p: (len(p), p))}


def label_logprobs(
    labels: Sequence[Sequence[Tokens]], logprobs: Mapping[Tokens, Mapping[int, float]]
) -> tuple[float, ...]:
    """The log-probability of each label: that of its more probable spelling, the product over the spelling's tokens."""
    return tuple(
        max(sum(logprobs[spelling[:d]][token] for d, token in enumerate(spelling)) for spelling in label)
        for label in labels
    )


# -- what fits --------------------------------------------------------------------------------------------------------


def too_long(request: Request, context_len: int | None) -> Answer | None:
    """The fault of a request that is longer with its answer than the model's context; None where it fits.

    A continuation's or label's last token is only predicted, and still needs its place: what is scored may fill the context.
    """
    sequences = [*request.continuations, *(s for label in request.labels for s in label)]
    need = request.prompt_tokens + max([request.max_tokens, *map(len, sequences)])
    if context_len is None or need <= context_len:
        return None
    fault = (
        f"the prompt has {need} tokens with its answer, and the context of the model holds {context_len} ({request.id})"
    )
    return Answer(request.id, error=fault)


# -- the end of an answer ---------------------------------------------------------------------------------------------


def finish(request: Request, tokens: Sequence[int], eos_ids: Container[int], tokenizer: Any) -> Answer:
    """The answer in generated tokens: without the end-of-sequence token, cut before the text or behind the token that ends it.

    Tokens that hold nothing but the ending text are dropped with it, so that every engine counts the same tokens.
    """
    ids = list(tokens)
    stopped = False
    for index, token in enumerate(ids):
        if token == request.stop or token in eos_ids:
            ids, stopped = ids[: index + (token == request.stop)], True
            break
    text = tokenizer.decode(ids, skip_special_tokens=True)
    cuts = [at for end in request.until if (at := text.find(end)) >= 0]
    if cuts:
        text, stopped = text[: min(cuts)], True
        while ids and len(tokenizer.decode(ids[:-1], skip_special_tokens=True)) >= len(text):
            ids.pop()
    return Answer(request.id, text=text, tokens=tuple(ids), finish="stop" if stopped else "length")
