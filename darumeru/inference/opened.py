"""A model with its tokenizer and its engine: found and checked before anything is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from darumeru.chats import TEMPLATE_DATE, template_of, writes_date
from darumeru.errors import DarumeruError
from darumeru.inference.model import (
    Model,
    adapter_sha256,
    has_tokenizer,
    load_tokenizer,
    open_model,
    template_sha256,
)
from darumeru.inference.prompt import Limits, Mode, Prompter
from darumeru.inference.thinking import Style, style_of
from darumeru.processor import slow_here
from darumeru.settings import ThinkingSettings

if TYPE_CHECKING:
    from darumeru.engines import Engine, EngineOptions, Server

log = logging.getLogger(__name__)


class ModelSettings(Protocol):
    """What must be known to find a model and to load it; `darumeru.evaluation.Settings` has all of it."""

    @property
    def model(self) -> str:
        """Folder or hub id."""

    @property
    def revision(self) -> str | None:
        """Of the hub id."""

    @property
    def tokenizer(self) -> Path | None:
        """The tokenizer's folder, where the model's has none."""

    @property
    def adapter(self) -> Path | None:
        """Folder of a LoRA adapter."""

    @property
    def trust_remote_code(self) -> bool:
        """Allow a model that brings Python code of its own."""

    @property
    def engine(self) -> str:
        """The engine's name, or `auto`."""

    @property
    def dtype(self) -> str:
        """See `EngineOptions`."""

    @property
    def device(self) -> Literal["auto", "cpu", "cuda"]:
        """See `EngineOptions`."""

    @property
    def seed(self) -> int:
        """See `EngineOptions`."""

    @property
    def exact(self) -> bool:
        """See `EngineOptions`."""

    @property
    def model_args(self) -> dict[str, Any]:
        """See `EngineOptions`."""

    @property
    def base_url(self) -> str | tuple[str, ...] | None:
        """See `Server`."""

    @property
    def api_key_env(self) -> str | None:
        """See `Server`."""

    @property
    def served_model(self) -> str | None:
        """See `Server.model`."""

    @property
    def approximate(self) -> bool:
        """See `Server`."""

    @property
    def max_prompt_len(self) -> int:
        """The longest prompt, in tokens."""


@dataclass(frozen=True)
class OpenedModel:
    """A model that can be asked once `load` has brought it into its engine."""

    settings: ModelSettings
    engine: type[Engine]
    model: Model
    tokenizer: Any
    mode: Mode
    server: Server | None = None
    """What an engine that needs a server asks."""
    thinking: ThinkingSettings = field(default_factory=ThinkingSettings)
    """Whether it is to think."""

    @classmethod
    def of(
        cls,
        settings: ModelSettings,
        *,
        mode: Literal["auto", "instruct", "foundation"] = "auto",
        thinking: ThinkingSettings | None = None,
        name: str | None = None,
        model: Model | None = None,
        tokenizer: Any = None,
    ) -> OpenedModel:
        """Find the model that settings name, and look through it.

        Args:
            settings: the model and how to compute it.
            mode: how to write prompts; `auto` goes by the chat template.
            thinking: whether the model is to think before it answers. [it does not]
            name: what to call the model in records. [`Model.name`]
            model: the model, if it is open already, with its tokenizer; `settings.model` is not looked up then.
            tokenizer: see `model`.

        Raises:
            UserError: there is no such model or engine, or it cannot be computed so.
            DarumeruError: the hub cannot be asked, or the tokenizer cannot be loaded.
        """
        from darumeru.engines import engine_class

        engine = engine_class(settings.engine, settings.device)
        server = engine.server_of(settings)
        if model is None:
            weights = not engine.needs_server
            model = open_model(settings.model, settings.revision, settings.trust_remote_code, weights)
            model = replace(model, name=name or model.name, tokenizer_path=settings.tokenizer)
            tokenizer = model.tokenizer(settings.trust_remote_code)
        if server is not None and not server.model:
            # A server names its model by hub id or path, as it was started; in the record a path would say nothing.
            server = replace(server, model=model.name, aliases=(settings.model,))
        if settings.adapter:
            adapter_sha256(settings.adapter)
            _tell_ignored(settings.adapter, tokenizer)
        chosen: Mode = mode if mode != "auto" else "instruct" if template_of(tokenizer) else "foundation"
        opened = cls(settings, engine, model, tokenizer, chosen, server, thinking or ThinkingSettings())
        _ = opened.style  # refused, if it must be, before anything is computed
        return opened

    @cached_property
    def context_len(self) -> int | None:
        """Its context in tokens, if it says."""
        return self.model.context_len(self.tokenizer)

    @cached_property
    def style(self) -> Style:
        """How its turns are rendered, so that it thinks or does not."""
        return style_of(self.tokenizer, self.thinking, self.context_len, chat=self.mode == "instruct")

    def prompter(self) -> Prompter:
        """Return what writes its prompts.

        Raises:
            UserError: the mode is `instruct`, and the tokenizer has no chat template.
        """
        return Prompter(self.tokenizer, self.mode, Limits(self.settings.max_prompt_len, self.context_len), self.style)

    def options(self, max_len: int) -> EngineOptions:
        """Return how the engine is to load it, for inputs of at most `max_len` tokens with their answers."""
        from darumeru.engines import EngineOptions

        settings = self.settings
        return EngineOptions(
            dtype=settings.dtype,
            device=settings.device,
            seed=settings.seed,
            trust_remote_code=settings.trust_remote_code,
            max_len=min(max_len, self.context_len or max_len),
            context_len=self.context_len,
            model_args=settings.model_args,
            adapter=settings.adapter,
            exact=settings.exact,
            server=self.server,
            tokenizer_path=settings.tokenizer,
            template_args=dict(self.style.template_args),
            thought_opening=self.style.opening if self.style.thinks else "",
        )

    def load(self, max_len: int) -> Engine:
        """Load it into its engine, for inputs of at most `max_len` tokens with their answers; see `Engine.load`.

        A type that the processor computes slowly is warned about.
        """
        eos_ids = self.model.eos_ids(self.tokenizer)
        engine = self.engine.load(self.model.path, self.tokenizer, eos_ids, self.options(max_len))
        facts = engine.describe()
        if facts.get("device") == "cpu" and (slow := slow_here(str(facts.get("dtype")))):
            log.warning(slow)
        return engine

    def model_facts(self) -> dict[str, Any]:
        """Return what a record states of the model: what decides its answers, and what a reader wants to know."""
        model, adapter = self.model, self.settings.adapter
        template = template_of(self.tokenizer) if self.mode == "instruct" else None
        # Only where the template asks for it: the identities of other runs are as they were.
        dated = template is not None and writes_date(self.tokenizer)
        # Nobody knows the weights behind a server: its address and its name for them stand in for them.
        known = self.server is None
        return {
            "name": model.name,
            "revision": model.revision,
            "weights_sha256": model.weights_sha256 if known else None,
            "tokenizer_sha256": model.tokenizer_sha256,
            "parameters": model.parameters if known else None,
            "vocab_size": model.text_config("vocab_size"),
            "model_type": model.config.get("model_type"),
            "context_len": self.context_len,
            "adapter_sha256": adapter_sha256(adapter) if adapter else None,
            "chat_template": template,
            "chat_template_sha256": template_sha256(template),
        } | ({"chat_template_date": TEMPLATE_DATE.isoformat()} if dated else {})

    def thinking_facts(self) -> dict[str, Any]:
        """Return what a record states of thinking; nothing for a model that does not and is given no template arguments."""
        return self.style.facts(self.thinking.chat_template_args)

    def engine_facts(self) -> dict[str, Any]:
        """Return what a record states of how the model is computed."""
        settings, server = self.settings, self.server
        facts: dict[str, Any] = {
            "name": self.engine.name,
            "version": self.engine.version(),
            "dtype": settings.dtype,
            "device": settings.device,
            "model_args": {k: str(v) for k, v in settings.model_args.items()},
        }
        if server is not None:
            facts |= {"base_url": server.base_url, "served_model": server.model, "approximate": server.approximate}
        return facts


def _tell_ignored(adapter: Path, tokenizer: Any) -> None:
    """Say so where an adapter brings a tokenizer or a chat template that is not the one in use: only its weights are read."""
    if not has_tokenizer(adapter):
        return
    try:
        own = load_tokenizer(adapter)
        same = own.get_vocab() == tokenizer.get_vocab() and own.chat_template == tokenizer.chat_template
    except DarumeruError:
        same = False
    if not same:
        log.warning(
            "The adapter's folder has a tokenizer or a chat template of its own, which is not used: the base's is. To use it, "
            "give --tokenizer %s.",
            adapter,
        )
