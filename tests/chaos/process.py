"""Commands in processes of their own, forked from this one, which has loaded the libraries: seconds less for each start.

What a fork imports that this process has not is noted (`loaded`), for `load` to import it here.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_MARK = "CHAOS_TRIAL"
_MODULES = "CHAOS_MODULES"
_LOOK = 0.005
_PRELOADED = Path(__file__).with_name("preloaded")


class Process:
    """A command that was started.

    Args:
        command: `darumeru` or `lep`, and its arguments.
        log: the file that gets what it prints.
        environment: variables beside ours.
        mark: names the trial in the environment of the command and of all that it starts.
        fresh: it is a Python of its own, which loads its libraries itself.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], mark: str, *, fresh: bool = False
    ) -> None:
        self.log, self.code = log, None
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(command, log, {**environment, _MARK: mark}, fresh=fresh)
        with suppress(OSError):  # done already, by itself
            os.setpgid(self.pid, self.pid)

    code: int | None
    """Its exit code; negative where a signal ended it."""

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, seconds: float) -> int:
        """Wait for its end.

        Raises:
            TimeoutError: it has done nothing for so long that it hangs; it is killed then.
        """
        heard, work = time.monotonic(), self._work()
        while (code := self.poll()) is None:
            if (now := self._work()) != work:
                heard, work = time.monotonic(), now
            if time.monotonic() - heard > seconds:
                self.kill()
                raise TimeoutError(f"it has hung for {seconds:.0f} s")
            time.sleep(_LOOK)
        return code

    def _work(self) -> str:
        """Return for how long it was on a processor, which grows on a busy machine too."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]
        return ""

    def run_until(self, reached: Callable[[], bool]) -> bool:
        """Let it run until something is so; return whether it still runs."""
        while self.poll() is None and not reached():
            time.sleep(_LOOK)
        return self.poll() is None

    def run_for(self, seconds: float) -> bool:
        """Let it run for some seconds since its start; return whether it still runs."""
        return self.run_until(lambda: time.monotonic() - self._began >= seconds)

    def kill(self) -> None:
        """End it, and what it forked, if it still runs."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _become(command: Sequence[str], log: Path, environment: Mapping[str, str], *, fresh: bool) -> NoReturn:
    """Be the command, in the forked process."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(_PRELOADED), str(_PRELOADED.parents[1]), os.environ.get("PYTHONPATH")))
    )
    if fresh:
        code = f"import sys; from {command[0]}.cli import main; sys.argv[0] = {command[0]!r}; main()"
        os.execv(sys.executable, [sys.executable, "-c", code, *command[1:]])  # noqa: S606
    sys.argv = list(command)

    def work() -> None:
        from .spy import note_answers, note_steps

        note_answers()
        note_steps()
        if command[0] == "lep":
            from lep.cli import main as lep

            lep()
        from darumeru.cli import main as darumeru

        darumeru()

    _end(work)


def _end(work: Callable[[], None]) -> NoReturn:
    """End this forked process as Python ends when it has done some work."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        if modules := os.environ.get(_MODULES):
            Path(modules).write_text(json.dumps(sorted(sys.modules)), encoding="utf-8")
        os._exit(code)


def apart(work: Callable[[], None], modules: Path) -> None:
    """Do some work in a fork; what it imports goes into the file `modules`, for `load`.

    Raises:
        RuntimeError: it failed.
    """
    pid = os.fork()
    if pid == 0:
        os.environ[_MODULES] = str(modules)
        _end(work)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise RuntimeError(f"the inputs of a scenario could not be made (exit code {code})")


def noting(modules: Path) -> dict[str, str]:
    """Return the environment of a command that writes what it imports into a file, for `load`."""
    return {_MODULES: str(modules)}


def load(modules: Path) -> None:
    """Import here what a fork imported."""
    for name in json.loads(modules.read_text(encoding="utf-8")):
        if name not in sys.modules:
            with suppress(Exception):  # what cannot be imported by its name alone is imported by who needs it
                importlib.import_module(name)


def left_behind(mark: str, groups: Collection[int]) -> list[str]:
    """Return the command lines of processes of a trial that still run.

    Args:
        mark: of the trial, which is in the environment of what its commands started.
        groups: of processes, as whose first the commands were started; what they forked is in them.
    """
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (place / "stat").read_text().rpartition(")")[2].split()[:3]
            ours = int(group) in groups or wanted in (place / "environ").read_bytes().split(b"\0")
            if ours and state not in "ZX":
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found
