"""A callback for transformers' `Trainer` that ends a training when a file says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from darumeru.errors import UserError
from darumeru.files import read_json
from darumeru.watch.ranks import Ranks
from darumeru.watch.verdict import STOP

log = logging.getLogger(__name__)


class StopFileCallback(TrainerCallback):  # type: ignore[misc]
    """Ends a training, with a last checkpoint, when a file `STOP` appears in its output folder (`darumeru watch --stop-if`).

    A file that lies there when the training begins is of an earlier one: it is removed, and the log says so.

    Args:
        file: the file. [`STOP` in `output_dir`]
        every: optimizer steps between two looks.
    """

    def __init__(self, file: Path | str | None = None, every: int = 10) -> None:
        self.file = Path(file) if file else None
        self.every = every
        self._ranks = Ranks()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove an old file."""
        self.file = self.file or Path(args.output_dir) / STOP
        if state.is_world_process_zero and self.file.exists():
            log.warning(
                "An earlier training was stopped (%s). This one continues; '%s' is removed.",
                _reason(self.file),
                self.file,
            )
            self.file.unlink(missing_ok=True)
        self._ranks.open()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look for the file."""
        if state.global_step % self.every or self.file is None:
            return
        if self._ranks.agree(state.is_world_process_zero and self.file.exists())[0]:
            if state.is_world_process_zero:
                log.warning("Step %d: '%s' stops the training: %s", state.global_step, self.file, _reason(self.file))
            control.should_training_stop = True
            control.should_save |= args.save_strategy != "no"

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the processes' group."""
        self._ranks.close()


def _reason(file: Path) -> str:
    try:
        return str(read_json(file).get("reason", "no reason given"))
    except (UserError, AttributeError, OSError):
        return "no reason given"
