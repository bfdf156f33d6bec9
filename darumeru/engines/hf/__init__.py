"""The `hf` engine: a transformers model in this process."""

from darumeru.engines.hf.engine import HFEngine

hf = HFEngine
"""As `darumeru.engines` finds it."""

__all__ = ["HFEngine", "hf"]
