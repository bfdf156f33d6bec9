"""The `api` engine: a model behind an OpenAI-compatible server."""

from darumeru.engines.api.engine import APIEngine

api = APIEngine
"""As `darumeru.engines` finds it."""

__all__ = ["APIEngine", "api"]
