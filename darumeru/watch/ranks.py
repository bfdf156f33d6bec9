"""The processes of a training: what the first one decides, all do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch


class Ranks:
    """The processes of a training, for decisions of the first that all must follow.

    They have a group of their own on the CPU: waiting for an evaluation must not run into the time limit of the training's own.
    """

    def __init__(self) -> None:
        self._group: Any = None

    def open(self) -> None:
        """Make the group; all processes must come here."""
        dist = torch.distributed
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(days=7))

    def agree(self, *decisions: bool) -> list[bool]:
        """The first process's decisions, in all of them; waits for it."""
        if self._group is None:
            return list(decisions)
        flags = torch.tensor([int(d) for d in decisions])
        torch.distributed.broadcast(flags, src=0, group=self._group)
        return [bool(flag) for flag in flags.tolist()]

    def close(self) -> None:
        """Leave the group."""
        if self._group is not None:
            torch.distributed.destroy_process_group(self._group)
            self._group = None
