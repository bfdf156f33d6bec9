"""Safetensors files read and written by rows.

The `safetensors` package reads slices of one tensor but neither gathers scattered rows nor writes a tensor that is
made block by block, so that a 174,816 x 4096 matrix would have to be in memory twice. The format is a public
eight-byte length, a JSON header and the raw rows (https://huggingface.co/docs/safetensors), which is what is read here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from darumeru.errors import DarumeruError, UserError
from darumeru.weights import SIZES, StoredTensor

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_COPY_BLOCK = 16 << 20


@dataclass(frozen=True)
class NewTensor:
    """A tensor that is yet to be made: `blocks()` yields its rows in order, as tensors of any float type."""

    dtype: str
    shape: tuple[int, ...]
    blocks: Callable[[], Iterable[torch.Tensor]]


def torch_dtype(dtype: str) -> torch.dtype:
    """Return the torch type of a safetensors float type.

    Raises:
        UserError: the type is none of F64, F32, F16, BF16 (a quantized model, say).
    """
    import torch

    if dtype not in _FLOATS:
        raise UserError(
            f"The embeddings are stored as {dtype}; F64, F32, F16 and BF16 can be worked on. "
            "Take the model before it was quantized."
        )
    found: torch.dtype = getattr(torch, _FLOATS[dtype])
    return found


def read_rows(tensor: StoredTensor, start: int, stop: int) -> torch.Tensor:
    """Return rows `start` to `stop` (exclusive) of a tensor, (stop - start) x the other dimensions, in the stored type."""
    import torch

    row = tensor.nbytes // max(tensor.shape[0], 1)
    buffer = bytearray(row * (stop - start))
    with tensor.file.open("rb", buffering=0) as file:
        _read_into(file.fileno(), memoryview(buffer), tensor.offset + row * start, tensor)
    if not buffer:
        return torch.empty((0, *tensor.shape[1:]), dtype=torch_dtype(tensor.dtype))
    return torch.frombuffer(buffer, dtype=torch_dtype(tensor.dtype)).view(stop - start, *tensor.shape[1:])


def gather_rows(tensor: StoredTensor, rows: NDArray[np.int64]) -> torch.Tensor:
    """Return the given rows, len(rows) x the other dimensions; neighbouring rows are read in one go.

    Args:
        tensor: the stored tensor.
        rows: row numbers in rising order, each below `tensor.shape[0]`.
    """
    import torch

    size = tensor.nbytes // max(tensor.shape[0], 1)
    buffer = bytearray(size * len(rows))
    view = memoryview(buffer)
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    ends = np.append(starts[1:], len(rows))
    with tensor.file.open("rb", buffering=0) as file:
        for begin, end in zip(starts.tolist(), ends.tolist(), strict=True):
            part = view[begin * size : end * size]
            _read_into(file.fileno(), part, tensor.offset + size * int(rows[begin]), tensor)
    if not buffer:
        return torch.empty((0, *tensor.shape[1:]), dtype=torch_dtype(tensor.dtype))
    return torch.frombuffer(buffer, dtype=torch_dtype(tensor.dtype)).view(len(rows), *tensor.shape[1:])


def write_shard(path: Path, tensors: Mapping[str, StoredTensor | NewTensor], metadata: Mapping[str, str]) -> int:
    """Write a safetensors file; stored tensors are copied byte for byte, new ones made block by block and rounded once.

    Returns:
        The number of bytes of tensor data.

    Raises:
        DarumeruError: a new tensor yields another number of rows than its shape says.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        nbytes = _nbytes(tensor)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, tensor in tensors.items():
            if isinstance(tensor, StoredTensor):
                _copy(tensor, file.write)
                continue
            written = 0
            for block in tensor.blocks():
                rounded = block.detach().to(torch_dtype(tensor.dtype)).contiguous()
                written += file.write(_raw(rounded))
            if written != _nbytes(tensor):
                raise DarumeruError(f"Tensor {name} came out at {written} bytes instead of {_nbytes(tensor)}.")
    return offset


def _nbytes(tensor: StoredTensor | NewTensor) -> int:
    if isinstance(tensor, StoredTensor):
        return tensor.nbytes
    return SIZES[tensor.dtype] * int(np.prod(tensor.shape, dtype=np.int64))


def _raw(tensor: torch.Tensor) -> memoryview:
    import torch

    raw: NDArray[np.uint8] = tensor.view(-1).view(torch.uint8).numpy()
    return raw.data


def _read_into(descriptor: int, view: memoryview, offset: int, tensor: StoredTensor) -> None:
    done = 0
    while done < len(view):
        count = os.preadv(descriptor, [view[done:]], offset + done)
        if count == 0:
            raise DarumeruError(f"{tensor.file} ended while tensor {tensor.name} was read. Fetch it again.")
        done += count


def _copy(tensor: StoredTensor, write: Callable[[memoryview], int]) -> None:
    buffer = memoryview(bytearray(min(_COPY_BLOCK, max(tensor.nbytes, 1))))
    done = 0
    with tensor.file.open("rb", buffering=0) as file:
        while done < tensor.nbytes:
            part = buffer[: min(len(buffer), tensor.nbytes - done)]
            _read_into(file.fileno(), part, tensor.offset + done, tensor)
            write(part)
            done += len(part)
