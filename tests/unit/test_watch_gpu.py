"""`darumeru watch` beside a training on the same GPU: what is free is said before the first evaluation."""

import pytest

from darumeru.doctor.gpus import Gpu
from darumeru.watch.process import device_of, taken_gpu

GB = 10**9
FREE, TAKEN = Gpu("H100", "580.1", 80 * GB, 79 * GB), Gpu("H100", "580.1", 80 * GB, 12 * GB)


@pytest.mark.parametrize(
    ("device", "gpus", "said"),
    [
        ("auto", [TAKEN, FREE], "Of GPU 0 (H100) 12.0 of 80.0 GB are free"),
        ("cuda:0", [TAKEN, FREE], "Of GPU 0 (H100) 12.0 of 80.0 GB are free"),
        ("cuda:1", [TAKEN, FREE], None),
        ("cuda:1", [FREE, TAKEN], "Of GPU 1 (H100) 12.0 of 80.0 GB are free"),
        ("cpu", [TAKEN], None),
        ("auto", [], None),
        ("cuda:3", [TAKEN], None),
        ("auto", [Gpu("GB10", "580.1", 0, 0)], None),
    ],
)
def test_a_gpu_that_is_taken_is_named(
    device: str, gpus: list[Gpu], said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    text = taken_gpu(*device_of(device), gpus)
    assert (text is None) == (said is None)
    if said is not None and text is not None:
        assert text.startswith(said)
        assert "--device cuda:N" in text
        assert "gpu_memory_utilization" in text


def test_the_variable_of_cuda_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert taken_gpu(*device_of("auto"), [TAKEN, FREE]) is None
    assert "GPU 0" in str(taken_gpu(*device_of("cuda:1"), [TAKEN, FREE]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234")
    assert taken_gpu(*device_of("auto"), [TAKEN, TAKEN]) is None, "which one it is the list does not tell"
