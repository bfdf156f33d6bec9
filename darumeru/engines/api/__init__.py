"""The `api` engine: a model behind an OpenAI-compatible server."""

from darumeru.engines.api.engine import APIEngine

__all__ = ["APIEngine"]
