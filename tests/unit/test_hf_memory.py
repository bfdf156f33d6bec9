"""Batches out of the memory that is free, and what is learned when it runs out."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from darumeru.engines.hf import memory
from darumeru.engines.hf.memory import Budget, budget_of, is_out_of_memory, token_bytes

GIB = 1 << 30


def llama_8b(dtype: torch.dtype = torch.bfloat16) -> Any:
    """The shape of Llama 3.1 8B."""
    text = SimpleNamespace(
        num_hidden_layers=32, num_key_value_heads=8, num_attention_heads=32, hidden_size=4096, intermediate_size=14336
    )
    return SimpleNamespace(dtype=dtype, config=SimpleNamespace(get_text_config=lambda decoder: text))


def test_a_token_takes_its_keys_and_values_and_more() -> None:
    cache = 32 * 2 * 8 * 128 * 2  # layers, keys and values, heads, width, bytes
    assert cache < token_bytes(llama_8b()) < 4 * cache
    assert token_bytes(llama_8b(torch.float32)) > 1.7 * token_bytes(llama_8b())


@pytest.mark.parametrize(
    ("device", "free", "least", "most"),
    [
        ("cuda", 60 * GIB, 60_000, 65_536),  # as much as is any use
        ("cuda", 2 * GIB, 2_000, 6_000),  # beside another program
        ("cuda", 1 << 20, 1, 4),
        ("cpu", 20 * GIB, 4096, 4096),  # not more than on any other CPU
        ("cpu", GIB // 2, 500, 2000),
    ],
)
def test_batches_follow_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, device: str, free: int, least: int, most: int
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: free)
    budget = budget_of(llama_8b(), torch.device(device), None)
    assert least <= budget.generated <= most
    assert budget.held * token_bytes(llama_8b()) <= max(free, token_bytes(llama_8b()))


def test_exact_batches_do_not_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for free in (GIB, 60 * GIB):
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        found.append(budget_of(llama_8b(), torch.device("cuda"), None, exact=True))
    assert found[0] == found[1]


def test_a_shared_prefix_counts_for_each_row() -> None:
    budget = Budget(generated=4000, scored=1000, held=8000)
    assert budget.rows(100, generates=True) == 40
    assert budget.rows(100) == 10
    assert budget.rows(100, shared=1900) == 4
    assert budget.rows(9000) == 1


def test_the_limit_is_below_what_failed_and_never_at_zero() -> None:
    budget = Budget(generated=32_768, scored=32_768, held=1_000_000)
    failures = 0
    while budget.rows(30, shared=3000) > 20:  # room for 20 rows
        budget.failed(budget.rows(30, shared=3000), 3030)
        failures += 1
    assert failures <= 5
    assert budget.rows(30, shared=3000) > 10
    budget.failed(1, 1)
    assert budget.rows(50) == 1


def test_memory_errors_of_all_allocators_are_known() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
    )
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(real.value)
