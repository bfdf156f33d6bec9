"""A model and its engine: found and checked, prompts and requests for it, and answers that are kept as they come."""

from darumeru.inference.asking import Progress, answer_tokens, ask, longest_input, requests_sha256
from darumeru.inference.opened import ModelSettings, OpenedModel

__all__ = ["ModelSettings", "OpenedModel", "Progress", "answer_tokens", "ask", "longest_input", "requests_sha256"]
