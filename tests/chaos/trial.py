"""One trial: a scenario's command is disturbed, started again, and looked at."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import faults, invariants, shim
from .content import differences, uncounted
from .faults import Ended, Fault
from .process import Process, left_behind, noting
from .scenarios import Content, Scenario
from .shim import Calls


@dataclass(frozen=True)
class Undisturbed:
    """What a scenario is like when nothing disturbs it."""

    content: Content
    calls: int
    """That change files."""
    seconds: float
    size: int
    """Bytes of what it leaves."""


@dataclass(frozen=True)
class Result:
    """What came of a trial."""

    scenario: str
    fault: str
    seed: str
    how: str
    starts: tuple[int, ...]
    """Exit codes."""
    refused: bool
    """A later start refused files that were changed behind its back."""
    wrong: tuple[str, ...]
    seconds: float


class Trial:
    """A place for one scenario to be disturbed in.

    Args:
        scenario: the scenario.
        place: a folder that is emptied first; the output folder will be in it.
        seed: of what is drawn.
        usual: what the scenario is like undisturbed; None to find that out.
    """

    def __init__(self, scenario: Scenario, place: Path, seed: str, usual: Undisturbed | None = None) -> None:
        self.scenario, self.seed, self._usual = scenario, seed, usual
        self.draw = random.Random(seed)
        shutil.rmtree(place, ignore_errors=True)
        self.place, self.outside = place / "place", place / "outside"
        for folder in (self.place, self.outside):
            folder.mkdir(parents=True)
        self.output, self.beside = self.place / "out", self.outside / "beside"
        scenario.arrange(self.beside)
        self.counted = Calls(self.place, self.outside / "calls")
        self._spied = self.outside / "spy"
        self._started: list[Process] = []
        self.codes: list[int] = []
        self.wrong: list[str] = []
        self.later: list[Callable[[], None]] = []
        """Checks to make at the very end."""

    @property
    def calls(self) -> int:
        """How many calls change files when nothing is disturbed."""
        return self._usual.calls if self._usual else 1

    @property
    def seconds(self) -> float:
        """How long a start takes when nothing is disturbed."""
        return self._usual.seconds if self._usual else 1.0

    @property
    def size(self) -> int:
        """How many bytes are written when nothing is disturbed."""
        return self._usual.size if self._usual else 1

    def at_some_moment(self, process: Process) -> tuple[bool, str]:
        """Let a start run until a moment that is drawn; return whether it still runs, and the moment in words.

        Half of the moments are times, which may lie before the first file is written; the others come shortly after a call that
        changes a file, whatever the speed of the machine.
        """
        after, call = self.draw.uniform(0.0, self.seconds), self.draw.randint(0, self.calls)
        if shim.reason() is not None or self.draw.random() < 0.5:
            return process.run_for(after), f"after {after:.2f} s"
        runs = process.run_until(lambda: self.counted.number >= call)
        time.sleep(self.draw.uniform(0.0, 0.02))
        return runs, f"after call {call} of {self.calls}"

    def rename(self, name: str) -> None:
        """Give the output folder another name, before anything is started."""
        self.output = self.place / name

    def files(self) -> list[Path]:
        """Return the files that are in the output folder."""
        return sorted(p for p in self.output.rglob("*") if p.is_file() and not p.is_symlink())

    def needed(self) -> list[Path]:
        """Return its files without those that are not looked at again: of checkpoints before the newest, of finished models."""
        newest = self.scenario.reached(self.output)

        def old(file: Path) -> bool:
            steps = [
                (str(p.parent), p.name.removeprefix("checkpoint-")) for p in file.parents if "checkpoint-" in p.name
            ]
            return any(step.isdecimal() and int(step) < newest.get(place, 0) for place, step in steps)

        def finished(file: Path) -> bool:
            return any((folder / "lep.json").is_file() for folder in file.parents if self.place in folder.parents)

        unread = {file for pattern in self.scenario.unread for file in self.output.glob(pattern)}
        return [file for file in self.files() if not old(file) and not finished(file) and file not in unread]

    def start(self, environment: Mapping[str, str] = {}) -> Process:
        """Start the command."""
        log = self.outside / f"{len(self._started)}.log"
        known = {"CHAOS_SPY": str(self._spied), **self.counted.environment(), **self.scenario.environment(self.beside)}
        process = Process(
            self.scenario.command(self.output, self.beside),
            log,
            {**known, **environment},
            self.seed,
            fresh=self.scenario.fresh,
        )
        self._started.append(process)
        return process

    def ended(self, process: Process, *, signalled: bool = False) -> int:
        """Wait for the end of a start, and check how it ended; its exit code."""
        try:
            code = process.wait(self.scenario.seconds)
        except TimeoutError as error:
            self.wrong.append(f"{error}: {process.text[-300:]!r}")
            code = -signal.SIGKILL
        else:
            self.wrong += invariants.exit_told(code, process.text, signalled)
        self.codes.append(code)
        return code

    @contextmanager
    def mounted(self, size: int) -> Iterator[Callable[[str], bool]]:
        """Mount a small file system where the output folder will be; gives what mounts it anew ("ro", "rw")."""
        with faults.mounted(self.place, size) as remount:
            yield remount

    def measure(self, modules: Path) -> Undisturbed:
        """Run the command undisturbed; what it imports goes into the file `modules`.

        Raises:
            RuntimeError: it failed.
        """
        with self._place():
            return self._measure(modules, time.monotonic())

    def _measure(self, modules: Path, began: float) -> Undisturbed:
        process = self.start(noting(modules))
        if self.ended(process) not in self.scenario.ends or self.wrong:
            raise RuntimeError(f"{self.scenario.name} fails undisturbed: {self.wrong}\n{process.text}")
        seconds = time.monotonic() - began
        size = sum(4096 + file.stat().st_size for file in self.files())
        return Undisturbed(self.scenario.content(self.output), self.counted.number, seconds, size)

    def run(self, fault: Fault) -> Result:
        """Disturb a start, start again, and check."""
        with self._place():
            return self._run(fault, time.monotonic())

    @contextmanager
    def _place(self) -> Iterator[None]:
        """What happens beside the commands, and their end if the trial is given up."""
        try:
            with self.scenario.meanwhile(self.output, self.beside):
                yield
        finally:
            for process in self._started:
                process.kill()

    def _run(self, fault: Fault, began: float) -> Result:
        ended = fault(self)
        self._after_the_fault(ended)
        reached, before = self.scenario.reached(self.output), len(self._log())
        refused = False
        for attempt in range(3 if ended.damaged else 1):
            process = self.start()
            code = self.ended(process)
            if done := self.scenario.done(code, process.text):
                break
            refused = ended.damaged and code in (1, 2)
            if refused:
                self._obey(process.text, attempt)
        if not done:
            self.wrong.append(f"started again it never succeeds: {process.text[-600:]!r}")
        if not self.wrong:
            found, wanted = self.scenario.content(self.output), self._wanted()
            self.wrong += differences(*((uncounted(c) for c in (found, wanted)) if ended.damaged else (found, wanted)))
        self.wrong += invariants.manifests_hold(self.output)
        self.wrong += invariants.locks_free(self.place)
        if not ended.damaged:
            self.wrong += invariants.computed_once(self._log(), before, reached)
        self._nothing_else()
        for check in self.later:
            check()
        wrong = tuple(dict.fromkeys(self.wrong))
        name, seconds = fault.__name__, time.monotonic() - began
        return Result(
            self.scenario.name, name, self.seed, ended.how, tuple(self.codes), refused, wrong, round(seconds, 1)
        )

    def _wanted(self) -> Content:
        assert self._usual is not None
        return self._usual.content

    def _after_the_fault(self, ended: Ended) -> None:
        time.sleep(0.02)
        self.wrong += self._still_running()
        if ended.damaged:
            return
        self.wrong += invariants.manifests_hold(self.output)
        if ended.must_succeed and self.codes[-1] not in self.scenario.ends:
            self.wrong.append(f"it had to succeed, and ended with {self.codes[-1]}")

    def _obey(self, text: str, refusals: int) -> None:
        """Delete what a refusal names, as a user would: the folder, else the file; what is named no better, all of it."""
        named = [path for path in self.output.rglob("*") if str(path) in text]
        folders = sorted((path for path in named if path.is_dir()), key=lambda path: -len(path.parts))
        chosen = [*folders, *named, self.output]
        path = chosen[0] if refusals == 0 else self.output
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _still_running(self) -> list[str]:
        deadline = time.monotonic() + self.scenario.lingers  # what a killed command started notices it by and by
        while (
            running := left_behind(self.seed, {process.pid for process in self._started})
        ) and time.monotonic() < deadline:
            time.sleep(0.1)
        return [f"a process was left: {line}" for line in running]

    def _nothing_else(self) -> None:
        self.wrong += self._still_running()
        expected = {self.output.name, "elsewhere"}
        self.wrong += [
            f"{p.name} was left behind beside the output" for p in self.place.iterdir() if p.name not in expected
        ]

    def _log(self) -> Sequence[str]:
        return self._spied.read_text(encoding="utf-8").splitlines() if self._spied.is_file() else []
