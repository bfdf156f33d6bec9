"""The checkpoints that a Trainer leaves in its output folder: which there are, which are whole, and keeping the best.

A Trainer writes `checkpoint-N` in this order: weights and configuration, tokenizer, optimizer and random states, and at last
`trainer_state.json`. So a checkpoint is whole when that file is there and readable, the weights are all there (safetensors
headers and sizes), and nothing in the folder has changed for a moment (it may be on its way here by rsync).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from darumeru.errors import DarumeruError, UserError
from darumeru.files import read_json
from darumeru.inference.model import has_tokenizer, open_model
from darumeru.watch.curve import Point, logged

_NAME = re.compile(r"checkpoint-(\d{1,12})")
STATE = "trainer_state.json"
SETTLE = 2.0
"""Seconds for which nothing in a checkpoint's folder may have changed."""


State = Literal["whole", "settling", "unfinished", "broken", "gone"]
"""`settling`: changed a moment ago; `unfinished`: its last file is not there; `broken`: that is, and something else is not."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder `checkpoint-N`, as it was when it was looked at."""

    path: Path
    step: int
    state: State
    reason: str = ""
    """Why it is not whole."""
    tokens_seen: int | None = None
    max_steps: int | None = None
    """At which step the training will end."""
    log: tuple[Point, ...] = ()
    """Losses up to this step."""
    signature: tuple[tuple[str, int, int], ...] = ()
    """Name, size and time of change (ns) of all files: changes when it is written again."""

    @property
    def weights(self) -> list[list[Any]]:
        """The signature of its weights, as a record states it."""
        return [list(entry) for entry in self.signature if re.fullmatch(r"[^/]+\.safetensors", entry[0])]


def check_folder(folder: Path, once: bool) -> None:
    """Refuse a folder that can hold no checkpoints; with `once` it must be there already.

    Raises:
        UserError: it is no folder.
    """
    if folder.is_dir() or (not once and not folder.exists() and folder.resolve().parent.is_dir()):
        return  # a training that is about to begin makes its folder itself
    raise UserError(f"'{folder}' is no folder. Give the output folder of a training, which holds checkpoint-N.")


def find_checkpoints(folder: Path, trust_remote_code: bool = False, settle: float = SETTLE) -> dict[int, Checkpoint]:
    """Return all checkpoints directly under a folder, by step."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) and path.is_dir():
            found[int(match[1])] = look(path, int(match[1]), trust_remote_code, settle)
    return {step: c for step, c in sorted(found.items()) if c.state != "gone"}


def look(path: Path, step: int, trust_remote_code: bool = False, settle: float = SETTLE) -> Checkpoint:
    """Look at a checkpoint without loading it."""
    try:
        signature = _signature(path)
    except OSError:
        return Checkpoint(path, step, "gone", "deleted while it was looked at")
    try:
        state = read_json(path / STATE)
        tokens = int(state.get("num_input_tokens_seen") or 0) or None
        last = int(state.get("max_steps") or 0) or None
        log = tuple(logged(state.get("log_history") or []))
        real = int(state["global_step"])
    except (UserError, KeyError, TypeError, ValueError, AttributeError):
        reason = "not written yet" if not (path / STATE).is_file() else "not readable yet"
        return Checkpoint(path, step, "unfinished", f"{STATE} is {reason}", signature=signature)
    seen = Checkpoint(path, step, "whole", "", tokens, last, log, signature)
    # The clock may have been put back, or be that of another machine: what lies far ahead was not written a moment ago.
    if abs(time.time() - max((changed for *_, changed in signature), default=0) / 1e9) < settle:
        return replace(seen, state="settling", reason="changed a moment ago")
    if real != step:
        return replace(seen, state="broken", reason=f"{STATE} says step {real}")
    try:
        open_model(path, None, trust_remote_code)
    except DarumeruError as error:
        if not path.is_dir():
            return replace(seen, state="gone", reason="deleted while it was looked at")
        sharded = any(p.name.startswith("pytorch_model_fsdp") for p in path.iterdir())
        hint = " FSDP saved it in shards: set fsdp_state_dict_type to FULL_STATE_DICT, or 'accelerate merge-weights'."
        return replace(seen, state="broken", reason=str(error) + (hint if sharded else ""))
    return seen


def _signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of all files below a folder."""
    found = []
    for folder, _, names in os.walk(path, onerror=_raise):
        for name in names:
            file = Path(folder) / name
            stat = file.stat()
            found.append((file.relative_to(path).as_posix(), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))


def _raise(error: OSError) -> None:
    raise error


def tokenizer_of(checkpoint: Path) -> Path | None:
    """Return where its tokenizer is, if not with it: in the folder above (a Trainer without `processing_class` saves none).

    Raises:
        UserError: neither has one.
    """
    if has_tokenizer(checkpoint):
        return None
    if has_tokenizer(checkpoint.parent):
        return checkpoint.parent
    raise UserError(
        f"Neither '{checkpoint}' nor the folder above has a tokenizer. Give one with --tokenizer DIR; a Trainer saves it "
        "with each checkpoint if it has it as processing_class."
    )


def keep(checkpoint: Path, folder: Path) -> Path:
    """Keep a checkpoint as `folder`/best, whatever the Trainer deletes later.

    `best` is a link to `best-N`, which holds hard links to the checkpoint's files (copies where the file system has none), so it
    costs nothing while the checkpoint is there. The link changes in one step; older `best-N` go afterwards.

    Raises:
        OSError: the checkpoint is gone, or the disk is full; what was best before stays.
    """
    target = folder / f"best-{checkpoint.name.removeprefix('checkpoint-')}"
    stage = folder / f".{target.name}.tmp"
    for left in folder.glob(".best-*.tmp"):  # by a kill; its links would keep what the Trainer has deleted
        shutil.rmtree(left, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, stage, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    link = folder / ".best.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(folder / "best")
    for old in folder.glob("best-*"):
        if old != target and re.fullmatch(r"best-\d+", old.name):
            shutil.rmtree(old, ignore_errors=True)
    return folder / "best"


def _link(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
