"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from tiny import make_model

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny instruct model."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny-chat", chat=True)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny foundation model."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny-base", chat=False)
