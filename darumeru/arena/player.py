"""A model that takes part, as one that answers or as the judge: found, checked and described before it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from darumeru.errors import UserError
from darumeru.inference import OpenedModel
from darumeru.settings import Settings


@dataclass(frozen=True)
class Player:
    """A model under its name in an arena."""

    name: str
    """By which it is known in the arena; of no other model there."""
    opened: OpenedModel

    @classmethod
    def of(cls, name: str, settings: Settings) -> Player:
        """Look through the model that settings name; see `OpenedModel.of`."""
        return cls(name, OpenedModel.of(settings, thinking=settings))

    @property
    def special_texts(self) -> list[str]:
        """The texts that its tokenizer takes for control tokens."""
        return [t.content for t in self.opened.tokenizer.added_tokens_decoder.values() if t.special]

    def facts(self) -> dict[str, Any]:
        """Return what decides its answers, whatever it is called; equal facts, equal model."""
        model = self.opened.model_facts()
        del model["name"]
        settings = self.opened.settings
        return {
            "model": model,
            "engine": self.opened.engine_facts(),
            "mode": self.opened.mode,
            "max_prompt_len": settings.max_prompt_len,
            "seed": settings.seed,
            "exact": settings.exact,
            **self.opened.thinking_facts(),
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
