"""The `hf` engine: a transformers model in this process."""

from darumeru.engines.hf.engine import HFEngine

__all__ = ["HFEngine"]
