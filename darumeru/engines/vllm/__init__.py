"""The `vllm` engine: vLLM in this process."""

from darumeru.engines.vllm.engine import VLLMEngine

vllm = VLLMEngine
"""As `darumeru.engines` finds it."""

__all__ = ["VLLMEngine", "vllm"]
