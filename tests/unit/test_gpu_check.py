"""`make gpu-check`: every check says what it needs, and why it cannot run here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.gpu_check import __main__, check, checks

    return __main__, check, checks


def test_what_runs_on_no_one_and_two_gpus(gpu_check: tuple[Any, Any, Any], tmp_path: Path) -> None:
    _, _, checks = gpu_check
    found = checks.checks((tmp_path,))
    assert len({check.name for check in found}) == len(found)
    runs = [{check.name for check in found if "GPU" not in check.lacks(gpus)} for gpus in (0, 1, 2)]
    assert {"hf on the CPU, float32", "evaluation inside a bfloat16 LoRA training", "hf --exact, twice"} <= runs[0]
    assert {"hf on the GPU, float32", "lep calibrate train --suite", "engines beside stock lm-eval"} <= runs[1] - runs[
        0
    ]
    assert {"vllm, tensor parallel", "watch, tensor parallel", "lep pretrain, FSDP"} == runs[2] & {
        "vllm, tensor parallel", "watch, tensor parallel", "lep pretrain, FSDP", "hf on the CPU, float32",
    } - runs[1]  # fmt: skip
    assert runs[1] <= runs[2]
    assert f"hf, {tmp_path.name}" in runs[0]


@pytest.mark.parametrize("how", ["fails", "breaks", "differs", "fits", "lacks"])
def test_one_check_does_not_end_the_others(how: str, gpu_check: tuple[Any, Any, Any]) -> None:
    main, check, _ = gpu_check

    def run(place: Any) -> Any:
        if how == "fails":
            raise check.FailedError("code 1: out of memory")
        if how == "breaks":
            raise KeyError("choose")
        return check.Found("1e-3", how == "fits", {"choose": 1e-3})

    row = main.done(check.Check("x", "small", run, gpus=2 if how == "lacks" else 0), None, 1)
    wanted: dict[str, tuple[str, str]] = {
        "fails": ("FAILED", "code 1: out of memory"), "breaks": ("FAILED", "KeyError: 'choose'"), "differs": ("DIFFERS", "1e-3"),
        "fits": ("ok", "1e-3"), "lacks": ("skipped", "needs 2 GPUs, 1 here"),
    }  # fmt: skip
    assert (row.verdict, row.found) == wanted[how]


def test_a_process_tells_why_it_failed(gpu_check: tuple[Any, Any, Any]) -> None:
    _, check, _ = gpu_check
    python: Callable[..., str] = check.python
    assert python(["-c", "print(7)"]).strip() == "7"
    with pytest.raises(check.FailedError, match="code 1: ValueError: no room"):
        python(["-c", "raise ValueError('no room')"])
    with pytest.raises(check.FailedError, match="did not end within 1 s"):
        python(["-c", "import time; time.sleep(60)"], timeout=1)
