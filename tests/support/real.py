"""What the real model is asked, and how two runs of it are held against each other."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHOICES = ("rummlu", "mmlu_ru", "mmlu_en", "parus", "rcb", "rwsd", "ruopenbookqa", "ruworldtree", "rucola")
ASKED: dict[str, Any] = {
    "data": "mini", "tasks": (*CHOICES, "sum_extractive", "cp_sent_en"), "limit": 6, "dtype": "float32",
    "max_prompt_len": 450,
}  # fmt: skip
"""A smaller limit chooses some of the same documents, so runs of fewer can be held against the answers to these.

All questions fit the prompt's length; articles, of 800 to 1,000 tokens, are truncated, which saves half of the time.
"""

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed on this machine"
)


def load_benchmark(name: str) -> ModuleType:
    """`benchmarks/NAME.py`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def load_agreement() -> ModuleType:
    """`benchmarks/agreement.py`."""
    return load_benchmark("agreement")
