"""All runs of a board, each read once: what has not changed since an earlier build is taken from it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from darumeru.errors import UserError
from darumeru.files import fingerprint, slug
from darumeru.leaderboard.entry import Entry, Problem
from darumeru.leaderboard.load import read_run, workers
from darumeru.leaderboard.samples import write_pieces
from darumeru.record.header import Header
from darumeru.record.run import Run

Stamp = tuple[tuple[str, int, int], ...]
"""Name, time of the last change in nanoseconds and size of each file."""


def stamp(folder: Path, depth: int = 1, leave_out: Path | None = None) -> Stamp:
    """Return what tells whether anything changed in a folder, by default a record.

    Left out are hidden files, which are being written, the journals of runs, which grow all the time, and what lies more than
    `depth` folders below, or in the folder `leave_out`.
    """
    found: list[tuple[str, int, int]] = []
    skipped = leave_out and str(leave_out.resolve())

    def look(place: str, depth: int) -> None:
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "journal.jsonl":
                continue
            try:
                if entry.is_dir():
                    if depth and (skipped is None or os.path.realpath(entry.path) != skipped):
                        look(entry.path, depth - 1)
                    continue
                stat = entry.stat()
            except OSError:
                continue
            found.append((entry.path, stat.st_mtime_ns, stat.st_size))

    look(str(folder), depth)
    return tuple(found)


@dataclass(frozen=True)
class _Job:
    """A run to be read."""

    path: Path
    page: str
    """Folder of its pages."""
    imported: bool
    stamp: Stamp


@dataclass(frozen=True)
class _Kept:
    """What an earlier build read of a run."""

    stamp: Stamp
    contents: bool
    """Whether the fingerprints of its documents were asked for."""
    result: Entry | Problem
    page: str


@dataclass
class Reader:
    """Reads the runs of a board; one that is kept between builds reads only what has changed.

    Args:
        processes: that read runs at once. [one for each core, at most 8, where there are many runs]
    """

    processes: int | None = None
    _kept: dict[Path, _Kept] = field(default_factory=dict)
    _read: dict[Path, _Kept] = field(default_factory=dict)

    def read(
        self, folders: Sequence[Path], stage: Path | None, before: Path | None
    ) -> tuple[list[Entry], list[Problem], dict[str, str]]:
        """Return all runs, each once, what is wrong with the others, and each page folder by entry id.

        Args:
            folders: of the runs.
            stage: the new site, into which their samples are written on the way; None to leave them out.
            before: the site before, whose samples of unchanged runs are taken.
        """
        jobs, problems = _jobs(folders)
        own, imported = ([job for job in jobs if job.imported == foreign] for foreign in (False, True))
        # Ours first: what was imported is paired with the runs that have its documents.
        found = self._read_jobs(own, stage, before, {} if imported else None)
        results = [task for entry in found if isinstance(entry, Entry) for task in entry.tasks.values()]
        contents = {r.content: r.key for r in results if r.content}
        found += _read_new(imported, stage, contents, self.processes)
        entries: list[Entry] = []
        pages: dict[str, str] = {}
        for job, result in zip([*own, *imported], found, strict=True):
            if isinstance(result, Problem):
                problems.append(result)
            elif result.id in pages:
                problems.append(Problem(result.name, f"Another run has the same id '{result.id}'."))
            else:
                entries.append(result)
                pages[result.id] = job.page
        return entries, problems, pages

    def _read_jobs(
        self, jobs: Sequence[_Job], stage: Path | None, before: Path | None, contents: Mapping[str, str] | None
    ) -> list[Entry | Problem]:
        asked = contents is not None
        new = [job for job in jobs if not self._taken(job, stage, before, asked)]
        read = _read_new(new, stage, contents, self.processes)
        fresh = {job.path: _Kept(job.stamp, asked, r, job.page) for job, r in zip(new, read, strict=True)}
        self._read = {job.path: fresh.get(job.path) or self._kept[job.path] for job in jobs}
        return [self._read[job.path].result for job in jobs]

    def keep(self) -> None:
        """Keep what was read last: the site that was made of it is in its place."""
        self._kept = self._read

    def _taken(self, job: _Job, stage: Path | None, before: Path | None, contents: bool) -> bool:
        """Return whether a run is as an earlier build read it; its samples are then linked into the new site."""
        kept = self._kept.get(job.path)
        if kept is None or (kept.stamp, kept.contents, kept.page) != (job.stamp, contents, job.page):
            return False
        if isinstance(kept.result, Problem) or stage is None:
            return True
        pieces = Path("runs") / job.page / "data"
        if before is None or not (before / pieces / "index.js").is_file():
            return False
        shutil.copytree(before / pieces, stage / pieces, copy_function=_link)
        return True


def _link(source: str, target: str) -> None:
    """Link a file of samples, which are written once; copy it where links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _read_new(
    jobs: Sequence[_Job], stage: Path | None, contents: Mapping[str, str] | None, processes: int | None
) -> list[Entry | Problem]:
    count = min(processes or workers(), len(jobs) // 8 + 1)
    arguments = [(job.path, None if stage is None else stage / "runs" / job.page, contents) for job in jobs]
    if count == 1:
        return [_read_one(argument) for argument in arguments]
    with ProcessPoolExecutor(count, initializer=_alone, initargs=(os.getpid(),)) as pool:
        return list(pool.map(_read_one, arguments, chunksize=4))


def _jobs(folders: Sequence[Path]) -> tuple[list[_Job], list[Problem]]:
    """Runs with the names of their pages. Of copies of a record the finished one, or the first, is taken."""
    chosen: dict[str, tuple[Path, Stamp]] = {}
    headers: dict[str, Header] = {}
    problems = []
    for path in folders:
        # Before anything is read: what changes meanwhile is read again next time.
        now = stamp(path)
        try:
            header = Run(path).header
        except UserError as error:
            problems.append(Problem(path.name, str(error)))
            continue
        key = header.id or fingerprint(header.to_json())
        if key not in chosen or (Run(path).complete and not Run(chosen[key][0]).complete):
            chosen[key], headers[key] = (path, now), header
    jobs = [
        _Job(path, f"{slug(headers[key].model.name)[:50]}-{slug(key)[:10]}", headers[key].imported is not None, now)
        for key, (path, now) in chosen.items()
    ]
    return jobs, problems


def _alone(parent: int) -> None:
    """Set up a reading process: one thread of linear algebra, since there is a process for each core, and no search for
    cycles, of which millions of small records have none. It ends when its parent was killed."""
    import gc

    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    gc.disable()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _read_one(argument: tuple[Path, Path | None, Mapping[str, str] | None]) -> Entry | Problem:
    path, folder, contents = argument
    result = read_run(path, contents)
    if isinstance(result, Problem):
        return result
    entry, samples = result
    if folder is not None:
        try:
            write_pieces(folder / "data", entry, samples)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            return Problem(entry.name, f"Its samples are not as a run writes them ({type(error).__name__}: {error}).")
    return entry
