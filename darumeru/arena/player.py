"""A model that takes part, as one that answers or as the judge: found, checked and described before it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.evaluation import Settings, engine_facts, engine_version, load, model_facts, server_of
from darumeru.inference.model import Model, open_model
from darumeru.inference.prompt import Limits, Mode, Prompter

if TYPE_CHECKING:
    from darumeru.engines import Engine, Server


@dataclass(frozen=True)
class Player:
    """A model and how it is computed."""

    name: str
    """By which it is known in the arena; of no other model there."""
    settings: Settings
    model: Model
    tokenizer: Any
    engine: str
    server: Server | None
    mode: Mode

    @classmethod
    def of(cls, name: str, settings: Settings) -> Player:
        """Look through the model that settings name.

        Raises:
            UserError: there is no such model, or it cannot be computed so.
            DarumeruError: the hub cannot be asked, or the tokenizer cannot be loaded.
        """
        from darumeru.engines import resolve_engine

        engine = resolve_engine(settings.engine)
        server = server_of(settings, engine)
        model = open_model(settings.model, settings.revision, settings.trust_remote_code, weights=server is None)
        if server is not None and not server.model:
            server = replace(server, model=model.name, aliases=(settings.model,))
        tokenizer = model.tokenizer(settings.trust_remote_code)
        mode: Mode = "instruct" if tokenizer.chat_template else "foundation"
        return cls(name, settings, model, tokenizer, engine, server, mode)

    def prompter(self) -> Prompter:
        """Return what writes its prompts."""
        return Prompter(self.tokenizer, self.mode, Limits(self.settings.max_prompt_len, self.context_len))

    @property
    def context_len(self) -> int | None:
        """Its context in tokens, if it says."""
        return self.model.context_len(self.tokenizer)

    @property
    def special_texts(self) -> list[str]:
        """The texts that its tokenizer takes for control tokens."""
        return [t.content for t in self.tokenizer.added_tokens_decoder.values() if t.special]

    def load(self, max_len: int) -> Engine:
        """Return the model in its engine, for inputs of at most `max_len` tokens."""
        return load(self.settings, self.engine, self.model, self.tokenizer, self.server, max_len)

    def facts(self) -> dict[str, Any]:
        """Return what decides its answers, whatever it is called; equal facts, equal model."""
        model = model_facts(self.model, self.tokenizer, self.mode, self.context_len, self.server)
        del model["name"]
        return {
            "model": model,
            "engine": engine_facts(self.settings, self.engine, engine_version(self.engine), self.server),
            "mode": self.mode,
            "max_prompt_len": self.settings.max_prompt_len,
            "seed": self.settings.seed,
            "exact": self.settings.exact,
        }


def distinct_names(models: Sequence[str]) -> list[str]:
    """Return short names of models: the last part of each path (a hub id as it is), after as many others as tell them apart.

    Raises:
        UserError: a model is named twice.
    """
    from pathlib import Path

    # "a/model" and "./a/model/" are one folder.
    paths = [PurePath(Path(m).resolve() if Path(m).exists() else m) for m in models]
    for path, model in zip(paths, models, strict=True):
        if paths.count(path) > 1:
            raise UserError(f"Model '{model}' is named twice; an arena compares different models.")
    names = []
    for path, model in zip(paths, models, strict=True):
        if not Path(model).exists():
            names.append(model)
            continue
        parts = [p for p in path.parts if p != path.anchor]
        for count in range(1, len(parts) + 1):
            name = "/".join(parts[-count:])
            tails = ["/".join([p for p in other.parts if p != other.anchor][-count:]) for other in paths]
            if tails.count(name) == 1:
                break
        names.append(name)
    return names
