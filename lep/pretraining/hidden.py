"""Hidden states of a frozen backbone, kept on disk: a head that passes over its text again need not compute them again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from darumeru.errors import FULL


class HiddenStates:
    """The last hidden states of the first rows of a data set, as many as `limit` bytes hold; a sparse file.

    What was kept is known in memory only: after a restart the states are computed once more. On a full disk no more are kept.
    """

    def __init__(self, file: Path, *, rows: int, width: int, dim: int, dtype: torch.dtype, limit: int) -> None:
        self.dtype = dtype
        self._kind = np.int16 if dtype.itemsize == 2 else np.int32
        capacity = min(rows, limit // (width * dim * dtype.itemsize))
        self._lengths = np.zeros(capacity, dtype=np.int64)
        self._states: np.memmap[Any, Any] | None = None
        self._full = False
        if capacity:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("wb", buffering=0)
            self._file.truncate(capacity * width * dim * dtype.itemsize)
            self._states = np.memmap(file, dtype=self._kind, mode="r", shape=(capacity, width, dim))
        self.read_rows = 0

    def read(self, rows: torch.Tensor, width: int) -> torch.Tensor | None:
        """Return the states of these rows, rows x width x d, zero beyond what was kept; None where one of them is missing."""
        chosen = rows.cpu().numpy()
        if self._states is None or not all(row < len(self._lengths) and self._lengths[row] for row in chosen):
            return None
        result = np.zeros((len(chosen), width, self._states.shape[2]), dtype=self._kind)
        for place, row in enumerate(chosen):
            length = min(int(self._lengths[row]), width)
            result[place, :length] = self._states[row, :length]
        self.read_rows += len(chosen)
        return torch.from_numpy(result).view(self.dtype).to(rows.device)

    def write(self, rows: torch.Tensor, hidden: torch.Tensor) -> None:
        """Keep the states of these rows, rows x width x d."""
        if self._states is None or self._full:
            return
        values = hidden.detach().to(self.dtype).contiguous().cpu()
        numbers = values.view(torch.int16 if self.dtype.itemsize == 2 else torch.int32).numpy()
        for row, states in zip(rows.cpu().numpy(), numbers, strict=True):
            if row < len(self._lengths) and self._write(int(row), np.ascontiguousarray(states).tobytes()):
                self._lengths[row] = len(states)

    def _write(self, row: int, data: bytes) -> bool:
        # Not through the memory map, where a full disk ends the process with a signal.
        assert self._states is not None  # noqa: S101
        try:
            return os.pwrite(self._file.fileno(), data, row * self._states[0].nbytes) == len(data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._full = True
            return False


def has_dropout(model: Any) -> bool:
    """Return whether hidden states differ each time because of dropout."""
    config = model.config.get_text_config()
    return bool(getattr(config, "attention_dropout", 0.0)) or any(
        isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()
    )
