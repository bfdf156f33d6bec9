"""The `api` engine: a model behind an OpenAI-compatible server."""
