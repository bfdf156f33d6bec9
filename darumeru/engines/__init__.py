"""Engines: a model that chooses among labels, ranks continuations and generates. They know no task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darumeru.engines.base import Engine, EngineOptions, Server
from darumeru.errors import unknown

ENGINES = ("auto", "hf", "vllm", "api")

__all__ = ["ENGINES", "Engine", "EngineOptions", "Server", "open_engine", "resolve_engine"]


def resolve_engine(name: str) -> str:
    """The engine that `auto` means here: vLLM where it is installed, else HF.

    Raises:
        UserError: no such engine.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    if name != "auto":
        return name
    from darumeru.engines.vllm import available

    return "vllm" if available() else "hf"


def open_engine(name: str, model: Path, tokenizer: Any, eos_ids: frozenset[int], options: EngineOptions) -> Engine:
    """Load a model into the named engine (a resolved name)."""
    if name == "api":
        from darumeru.engines.api.engine import APIEngine

        return APIEngine(model, tokenizer, eos_ids, options)
    if name == "vllm":
        from darumeru.engines.vllm import VLLMEngine

        return VLLMEngine(model, tokenizer, eos_ids, options)
    from darumeru.engines.hf import HFEngine

    return HFEngine.load(model, tokenizer, eos_ids, options)
