"""Layers that the adaptation trained, carried over: ``W = W_inst + α (W_adapted − W_base)``, a tensor at a time.

A difference of weights that is added to another variant of the same model is known as a task vector (Ilharco et al., arXiv
2212.04089); Chat Vector (arXiv 2310.04799) adds the difference of instruct and base to the adapted model, which for α = 1 is
the same sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

from darumeru.errors import UserError
from darumeru.weights import StoredTensor
from lep.model.checkpoint import Checkpoint
from lep.model.rounding import generator_for, round_unbiased
from lep.model.shards import NewTensor, read_rows, torch_dtype

if TYPE_CHECKING:
    import torch

_BYTES = 16 << 20
_ROWS = 1024


def trained_tensors(base: Checkpoint, adapted: Checkpoint) -> list[str]:
    """Return the names of the tensors, besides embedding and head, that are not the same in both models.

    Raises:
        UserError: a tensor is in only one of them, or its shapes differ.
    """
    found = []
    others = {name: tensor for name, tensor in adapted.tensors.items() if name not in _of_tokens(adapted)}
    for name, tensor in base.tensors.items():
        if name in _of_tokens(base):
            continue
        other = others.pop(name, None)
        if other is None or other.shape != tensor.shape:
            raise UserError(
                f"The tensor {name} of the base is {'missing' if other is None else 'of another shape'} in the adapted "
                "model; both must be the same model."
            )
        if not _same(tensor, other, _states(tensor, other)):
            found.append(name)
    if others:
        raise UserError(
            f"The tensor {next(iter(others))} of the adapted model is not in the base; is it the same model?"
        )
    return found


def with_changes(
    base: Checkpoint, adapted: Checkpoint, instruct: Checkpoint, names: Sequence[str], alpha: float
) -> dict[str, NewTensor]:
    """Return ``W_inst + α (W_adapted − W_base)`` for these tensors, in the instruct model's types.

    Computed in float32 and rounded without a bias (`lep.model.rounding`): most of a small change is below half of the last
    bit, which rounding to the nearest value would lose.

    Raises:
        UserError: the instruct model lacks a tensor, or it has another shape or is quantized.
    """
    result = {}
    for name in names:
        first, second, own = (model.tensors.get(name) for model in (base, adapted, instruct))
        if own is None or first is None or second is None or own.shape != first.shape:
            raise UserError(
                f"The adaptation trained {name}, and the instruct model has no tensor of that name and shape. Leave trained "
                "layers out with --backbone instruct."
            )
        torch_dtype(own.dtype)
        result[own.name] = NewTensor(own.dtype, own.shape, partial(_sum, first, second, own, alpha))
    return result


def _sum(base: StoredTensor, adapted: StoredTensor, own: StoredTensor, alpha: float) -> Iterator[torch.Tensor]:
    draws = generator_for(own.name)
    for start in range(0, own.shape[0], _ROWS):
        stop = min(start + _ROWS, own.shape[0])
        first, second, mine = (read_rows(tensor, start, stop).float() for tensor in (base, adapted, own))
        yield round_unbiased(mine + alpha * (second - first), torch_dtype(own.dtype), draws)


def _of_tokens(model: Checkpoint) -> set[str]:
    found = model.embeddings
    return {t.name for t in (found.input, found.head, found.bias, found.extra) if t is not None}


def _states(*tensors: StoredTensor) -> tuple[tuple[int, int], ...]:
    """Return size and time of the last change of each tensor's file, which say what state of it is meant."""
    stats = [tensor.file.stat() for tensor in tensors]
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


@cache
def _same(left: StoredTensor, right: StoredTensor, states: tuple[tuple[int, int], ...]) -> bool:
    """Return whether the values are equal; asked once a process, however many methods are run side by side."""
    if left.dtype != right.dtype:
        import torch

        blocks = range(0, left.shape[0], _ROWS)
        ends = [min(start + _ROWS, left.shape[0]) for start in blocks]
        return all(
            torch.equal(read_rows(left, start, stop).double(), read_rows(right, start, stop).double())
            for start, stop in zip(blocks, ends, strict=True)
        )
    if left.offset == right.offset and left.file.samefile(right.file):  # hard-linked shards
        return True
    with left.file.open("rb") as one, right.file.open("rb") as two:
        one.seek(left.offset)
        two.seek(right.offset)
        for start in range(0, left.nbytes, _BYTES):
            count = min(_BYTES, left.nbytes - start)
            if one.read(count) != two.read(count):
                return False
    return True
