"""A board that people keep open: at a local address, built again whenever a record changes."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from darumeru.errors import DarumeruError
from darumeru.leaderboard.reading import Reader, Stamp, stamp
from darumeru.leaderboard.server import Pages, address_of, listen
from darumeru.leaderboard.site import Built, build
from darumeru.record.run import Run

HOST, PORT = "127.0.0.1", 8321
_DEPTH = 3
"""Folders below a path in which a record's files, or another tool's results, lie."""
_PATIENCE = 5
"""Looks after which a change is built though files still change."""
_SHARE = 20
"""A look may take one in so many seconds."""
_RECENT = 600.0
"""Seconds since its last answer after which a run is taken for interrupted."""

Report = Callable[[str], None]
"""Is told what happened, in a sentence."""


def watched(paths: Sequence[Path], leave_out: Path) -> Stamp:
    """Return what tells whether anything changed under `paths`, folders or files, outside the folder `leave_out` (`stamp`)."""
    found: list[tuple[str, int, int]] = []
    for path in paths:
        if path.is_dir():
            found += stamp(path, _DEPTH, leave_out)
            continue
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _below(path: Path) -> list[Path]:
    try:
        return sorted(p for p in path.iterdir() if p.is_dir())
    except OSError:  # a file, or it has just been removed
        return []


@dataclass
class Journals:
    """How many answers the runs under way have, as their journals tell; each line is read once."""

    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Bytes that were read, and answers in them."""

    def look(self, paths: Sequence[Path]) -> list[dict[str, Any]]:
        """Return model and answers of each run whose journal has grown in the last minutes."""
        journals = [folder / "journal.jsonl" for path in paths for folder in (path, *_below(path))]
        found = []
        for journal in journals:
            try:
                if time.time() - journal.stat().st_mtime < _RECENT:
                    name = Run(journal.parent).header.model.name
                    found.append({"name": name, "answers": self._answers(journal)})
            except (OSError, DarumeruError, ValueError, KeyError, TypeError):
                continue  # there is none, or it has just been finished
        return found

    def _answers(self, journal: Path) -> int:
        read, answers = self._read.get(journal, (0, 0))
        with journal.open("rb") as file:
            if file.seek(0, os.SEEK_END) < read:  # begun anew
                read = answers = 0
            file.seek(read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                answers += len(json.loads(line)["answers"])
                read += len(line)
        self._read[journal] = read, answers
        return answers


@dataclass
class Live:
    """A board that is served; `follow` keeps it new."""

    address: str
    paths: Sequence[Path]
    pages: Pages
    make: Callable[[], Built]
    report: Report
    seen: Stamp = ()
    _pending: Stamp | None = None
    _waited: int = 0
    _told: set[str] = field(default_factory=set)
    """What was said of the build before."""
    _journals: Journals = field(default_factory=Journals)

    def follow(self, poll: float = 1.0, stop: threading.Event | None = None) -> None:
        """Build again whenever something has changed, until `stop` is set.

        Args:
            poll: seconds between two looks; more where a look takes long.
            stop: ends it; without one only an interrupt does.
        """
        stop = stop or threading.Event()
        pause = poll
        while not stop.wait(pause):
            begun = time.monotonic()
            built = self.look()
            pause = poll if built else max(poll, _SHARE * (time.monotonic() - begun))

    def look(self) -> bool:
        """Look for changes once, and build if they have come to rest; return whether it was tried."""
        now = watched(self.paths, self.pages.folder)
        self.pages.state = {**self.pages.state, "running": self._journals.look(self.paths)}
        if now == self.seen:
            self._pending, self._waited = None, 0
            return False
        if now != self._pending and self._waited < _PATIENCE:
            self._pending, self._waited = now, self._waited + 1
            return False
        self._pending, self._waited = None, 0
        self.build(now)
        return True

    def build(self, now: Stamp) -> None:
        """Build what was seen; where that fails the board stays as it is, and the reason is told."""
        self.seen = now
        begun = time.monotonic()
        try:
            built = self.make()
        except DarumeruError as error:
            self._failed(str(error))
        except Exception as error:  # whatever lies in a folder must not end a board that people look at
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self.tell(built, time.monotonic() - begun)

    def _failed(self, reason: str) -> None:
        self.pages.state = {**self.pages.state, "failed": True}
        self.report(f"{_now()} Not built: {reason} The board stays as it was.")

    def tell(self, built: Built, seconds: float) -> None:
        """Tell readers and the terminal of a build."""
        at = _now()
        self.pages.state = {**self.pages.state, "built": at, "failed": False}
        self.report(f"{at} Built in {seconds:.1f} s: {len(built.board.rows)} rows.")
        for remark in built.remarks:
            if remark not in self._told:
                self.report(remark)
        self._told = set(built.remarks)


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


@contextmanager
def served(
    paths: Sequence[Path],
    output: Path | None = None,
    *,
    host: str = HOST,
    port: int = PORT,
    report: Report = lambda sentence: None,
    url: str | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """Build a board and serve it while the block runs.

    Args:
        paths: as for `build`.
        output: folder of the site; without one it is a temporary one, and gone afterwards.
        host: at which it listens. Anything but this machine's own address lets others read it.
        port: 0 for any free one.
        report: is told of each build.
        url: as for `build`; the address of this server by default.
        settings: further arguments of `build`.

    Raises:
        UserError: as `build` and `listen` do.
    """
    with tempfile.TemporaryDirectory(prefix="darumeru-board-") as folder:
        site = output or Path(folder) / "site"
        pages = Pages(site)
        server = listen(host, port, pages)
        try:
            address = address_of(server)
            reader = Reader(settings.pop("processes", None))
            about = [settings["about"]] if settings.get("about") else []

            def make() -> Built:
                return build(paths, site, url=url or address, reader=reader, **settings)

            live = Live(address, [*paths, *about], pages, make, report)
            live.seen = watched(live.paths, site)
            begun = time.monotonic()
            live.tell(make(), time.monotonic() - begun)
            with _serving(server):
                yield live
        finally:
            server.server_close()


@contextmanager
def _serving(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
