"""An engine of another package: one new file and an entry point, nothing of Darumeru is touched."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import darumeru
from darumeru.engines import AUTO, Engine, engine_class, engine_names
from darumeru.errors import DarumeruError, UserError
from support.commands import call

ENGINE = """
from darumeru.engines import Engine
from darumeru.requests import Answer


class Coin(Engine):
    name = "coin"
    distributions = ("coin-engine",)

    def __init__(self, model, tokenizer, eos_ids, options):
        super().__init__()
        self.tokenizer, self.eos_ids = tokenizer, eos_ids

    @classmethod
    def known_args(cls):
        return ("side",)

    def describe(self):
        return {"engine": self.name, "dtype": "none", "device": "cpu"}

    def answers(self, requests, done=()):
        for request in requests:
            if request.id not in done:
                yield [Answer(request.id, logprobs=(-0.5, *(-1.0 for _ in request.labels[1:])))]
"""


def plugin(folder: Path, name: str = "coin", value: str = "coin_engine:Coin") -> Path:
    """A folder as pip leaves it: the package's file and its dist-info."""
    info = folder / "coin_engine-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: coin-engine\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[darumeru.engines]\n{name} = {value}\n")
    (folder / "coin_engine.py").write_text(ENGINE)
    return folder


@pytest.fixture
def coin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = plugin(tmp_path / "site")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "coin_engine", raising=False)
    return folder


def test_an_engine_of_another_package_is_found_by_name(coin: Path) -> None:
    assert engine_names() == ["api", "coin", "hf", "vllm"]
    engine = engine_class("coin")
    assert engine.name == "coin"
    assert engine.version() == "coin-engine 1.2"
    with pytest.raises(
        UserError, match=r"Unknown engine 'coim'\. Did you mean 'coin'\? Available: api, auto, coin, hf, vllm\."
    ):
        engine_class("coim")
    with pytest.raises(UserError, match=r"Unknown --model-args key for the coin engine 'sid'\. Did you mean 'side'\?"):
        engine.check_args({"sid": 1})
    assert engine_class(AUTO).name in ("hf", "vllm"), "auto takes only what says that it may be taken"


def test_the_command_line_runs_it(coin: Path, tiny_chat: Path, tmp_path: Path) -> None:
    call("run", "--model", tiny_chat, "--engine", "coin", "--data", "mini", "--tasks", "parus", "--limit", 2, "--output",
         tmp_path / "runs")  # fmt: skip
    (header,) = (json.loads(f.read_text()) for f in (tmp_path / "runs").glob("*/header.json"))
    assert header["engine"]["name"] == "coin"
    assert header["engine"]["version"] == "coin-engine 1.2"
    assert header["environment"]["engine"] == "coin"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("coin", "coin_engine:Coins", r"The engine 'coin' \(coin_engine:Coins\) cannot be imported"),
        ("flip", "coin_engine:Coin", r"The engine 'flip' \(coin_engine:Coin\) is no subclass .* whose name is 'flip'"),
        ("path", "pathlib:Path", r"The engine 'path' \(pathlib.*:Path\) is no subclass"),
    ],
)
def test_a_broken_plugin_is_named_and_hurts_no_other_engine(
    name: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugin(tmp_path, name, value))
    monkeypatch.delitem(sys.modules, "coin_engine", raising=False)
    with pytest.raises(DarumeruError, match=message):
        engine_class(name)
    assert issubclass(engine_class(AUTO), Engine)


def test_names_are_listed_without_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "vllm", "lm_eval", "datasets")
    code = f"import sys, darumeru.engines as e; e.engine_names(); print([m for m in {heavy} if m in sys.modules])"
    root = str(Path(darumeru.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
