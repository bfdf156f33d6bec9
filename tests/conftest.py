"""Fixtures of all tests: tiny models and tokenizers, made here; and the shared data, where it is there."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import thinking, tiny
from support.hub import Hub, serve
from support.hub_data import fill
from support.lep_models import ARCHITECTURES

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent

TIERS = ("system", "model", "unit")
"""Folders of tests, the longest tests first; each is a marker too."""
LONGEST = "vllm"
"""The group of tests (`xdist_group`: on one worker, because they share something costly) that decides how long all takes."""
LATER = "api"
"""The group that needs what the longest computes first: until then its worker has other long tests to do."""

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by its folder; for several workers, put what takes long first, so that none of them ends alone.

    Tests that share a fixture of their module go to one worker.
    """
    for item in items:
        item.add_marker(item.path.relative_to(TESTS).parts[0])
    if hasattr(config, "workerinput"):
        items.sort(key=_place)
        for item in items:
            if isinstance(item, pytest.Function) and _shares(item) and not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _shares(item: pytest.Function) -> bool:
    """Whether a test uses a fixture of its module, which each worker that has tests of the module would make again."""
    used = item._fixtureinfo.name2fixturedefs.values()
    return any(fixture.scope == "module" for fixtures in used for fixture in fixtures)


def _place(item: pytest.Item) -> tuple[int, int, int]:
    tier = next(mark.name for mark in item.iter_markers() if mark.name in TIERS)
    group = item.get_closest_marker("xdist_group")
    name = group.args[0] if group else None
    return 0 if name == LONGEST else 1, TIERS.index(tier), 1 if name == LATER else 0 if group is None else 2


@pytest.fixture(scope="session")
def tiny_chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny instruct model."""
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny-chat", chat=True)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model."""
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny-base", chat=False)


@pytest.fixture(scope="session")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that thinks before it answers."""
    return thinking.make_thinking_model(tmp_path_factory.mktemp("models") / "thinking")


@pytest.fixture(scope="session")
def tiny_dropout(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with dropout."""
    folder = tmp_path_factory.mktemp("models") / "tiny-dropout"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(os.environ.get("DARUMERU_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"shared data not found at {folder} (set DARUMERU_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tokenizers_folder() -> Path:
    """Qwen3's and Llama-3's tokenizers, as scripts/fetch_tokenizers.py leaves them."""
    folder = Path(os.environ.get("DARUMERU_TOKENIZERS", REPOSITORY / ".cache" / "tokenizers"))
    if not folder.is_dir():
        pytest.skip(f"no tokenizers at {folder}; run scripts/fetch_tokenizers.py")
    return folder


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A saved model of random weights: make_model(name, "llama-tied", rows=300, seed=0) → its folder."""

    def make(name: str, kind: str = "llama", *, rows: int = 300, seed: int = 0, **settings: Any) -> Path:
        import torch
        import transformers

        config_name, model_name, values = ARCHITECTURES[kind]
        values = {**values, **settings}
        if "text_config" in values:
            values["text_config"] = {**values["text_config"], "vocab_size": rows}
        else:
            values["vocab_size"] = rows
        torch.manual_seed(seed)
        model = getattr(transformers, model_name)(getattr(transformers, config_name)(**values))
        folder = tmp_path / name
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with the data sets of both suites."""
    with serve() as served:
        yield fill(served)
