"""Notes what a command computes: a line for each answer that it has acknowledged and for each training step that it begins.

The lines go to the file that CHAOS_SPY names: `answer JOURNAL ID` and `step FOLDER NUMBER`.
"""

from __future__ import annotations

import os
from typing import Any


def note_answers() -> None:
    """Note answers, from here on, in this process."""
    import darumeru.record.run as record

    append = record.Journal.append

    def noted(self: Any, batch: Any, *rest: Any) -> None:
        append(self, batch, *rest)
        _note("".join(f"answer {self.path.parent.name}/{self.path.name} {answer.id}\n" for answer in batch))

    record.Journal.append = noted  # type: ignore[method-assign]


def note_steps() -> None:
    """Note training steps, from here on, in this process."""
    from lep.pretraining.callbacks import Clock

    begin = Clock.on_step_begin

    def noted(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        _note(f"step {args.output_dir} {state.global_step}\n")
        begin(self, args, state, control, **rest)

    Clock.on_step_begin = noted  # type: ignore[method-assign]


def _note(lines: str) -> None:
    handle = os.open(os.environ["CHAOS_SPY"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(handle, lines.encode())
    os.close(handle)
