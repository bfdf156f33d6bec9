"""The site: a folder of static files that works from disk and without any network.

    index.html                 the board
    table.md .csv .json .tex   the same as data
    figures/                   SVG and PNG
    assets/                    style, scripts, and the drawing library, once
    data/board.js              the rows of the board
    runs/RUN/index.html        a run; samples.html and data/ beside it hold its samples

A page that is opened from disk may not `fetch`, so all data are scripts that call `daru(name, value)`.
The site is built beside its place and put there when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from darumeru.errors import UserError
from darumeru.extras import need
from darumeru.files import fingerprint, is_empty, slug, staged
from darumeru.leaderboard.about import describe, distinct_names, read_about
from darumeru.leaderboard.board import Board, make_board, to_frame
from darumeru.leaderboard.data import MARK, board_json, table_json
from darumeru.leaderboard.entry import Entry, Problem
from darumeru.leaderboard.load import gather, import_all, read_run, suite_of, workers
from darumeru.leaderboard.pages import WEB, write_run
from darumeru.leaderboard.published import read_published
from darumeru.leaderboard.samples import write_pieces
from darumeru.leaderboard.tables import to_latex, to_markdown
from darumeru.record.header import Header
from darumeru.record.run import Run
from darumeru.web.pages import render_page, script, write_assets, write_page

PACKAGES = ("altair", "vl_convert", "pandas", "threadpoolctl")
"""What a board needs of the extra `leaderboard`."""


@dataclass(frozen=True)
class Built:
    """Result of a build."""

    path: Path
    board: Board


def build(
    paths: Sequence[Path],
    output: Path,
    *,
    baseline: str | None = None,
    published: bool = True,
    title: str = "Darumeru",
    about: Path | None = None,
    samples: bool = True,
    processes: int | None = None,
) -> Built:
    """Build a leaderboard from runs.

    Args:
        paths: folders of runs, or folders that hold them; results of lm-eval with samples and records of Every Eval Ever too.
        output: folder of the site; one that an earlier call wrote is replaced.
        baseline: model against which every score is held.
        published: whether the paper's rows are shown.
        title: of the page.
        about: YAML file of what else is known of the models, see `read_about`.
        samples: whether the site holds the samples of the runs.
        processes: that read runs at once.

    Raises:
        UserError: no run can be read and there are no published rows; `output` holds something else; an unknown baseline;
            the extra `leaderboard` is not installed.
    """
    need(*PACKAGES, extra="leaderboard")
    known = read_about(about) if about else {}
    folders, others = gather(paths)
    _replaceable(output)
    with staged(output) as stage, tempfile.TemporaryDirectory() as records:
        imported, refused = import_all(others, Path(records))
        entries, problems, pages = _read_all([*folders, *imported], stage if samples else None, processes)
        problems += refused
        named = distinct_names([describe(e, known) for e in entries])
        named += [describe(e, known) for e in read_published()] if published else []
        if not named:
            detail = f" The first: {problems[0].name}: {problems[0].reason}" if problems else ""
            raise UserError(f"Nothing to show: none of {len(folders) + len(others)} runs can be read.{detail}")
        board = make_board(named, suite_of(named), problems, baseline, title)
        write_site(board, stage, pages, samples)
    return Built(output, board)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_all(
    folders: Sequence[Path], stage: Path | None, processes: int | None
) -> tuple[list[Entry], list[Problem], dict[str, str]]:
    """Return all runs, each once, and each page folder by entry id; the pieces of their samples are written on the way."""
    jobs, problems = _jobs(folders)
    own, imported = ([job for job in jobs if job.imported == foreign] for foreign in (False, True))
    # Ours first: what was imported is paired with the runs that have its documents.
    found = _read_jobs(own, stage, {} if imported else None, processes)
    results = [task for entry in found if isinstance(entry, Entry) for task in entry.tasks.values()]
    found += _read_jobs(imported, stage, {r.content: r.key for r in results if r.content}, processes)
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


@dataclass(frozen=True)
class _Job:
    """A run to be read."""

    path: Path
    page: str
    """Folder of its pages."""
    imported: bool


def _read_jobs(
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
    chosen: dict[str, Path] = {}
    headers: dict[str, Header] = {}
    problems = []
    for path in folders:
        try:
            header = Run(path).header
        except UserError as error:
            problems.append(Problem(path.name, str(error)))
            continue
        key = header.id or fingerprint(header.to_json())
        if key not in chosen or (Run(path).complete and not Run(chosen[key]).complete):
            chosen[key], headers[key] = path, header
    jobs = [
        _Job(path, f"{slug(headers[key].model.name)[:50]}-{slug(key)[:10]}", headers[key].imported is not None)
        for key, path in chosen.items()
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


# -- writing ----------------------------------------------------------------------------------------------------------


def write_site(board: Board, stage: Path, pages: Mapping[str, str], samples: bool) -> None:
    """Write all files of the site but the samples."""
    from darumeru.leaderboard.figures import render, static_figures
    from darumeru.leaderboard.figures import script as vega

    write_assets(stage / "assets", *sorted(WEB.glob("*.js")))
    write_page(stage / "assets" / "vega.js", vega())
    (stage / "data").mkdir()
    write_page(stage / "data" / "board.js", script("board", board_json(board, pages)))
    frame = to_frame(board)
    write_page(stage / "table.csv", frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_page(stage / "table.md", to_markdown(board))
    write_page(stage / "table.tex", to_latex(board))
    write_page(stage / "table.json", json.dumps(table_json(board), ensure_ascii=False, indent=1) + "\n")
    (stage / "figures").mkdir()
    names = []
    for name, specification in static_figures(board).items():
        svg, png = render(specification)
        write_page(stage / "figures" / f"{name}.svg", svg)
        (stage / "figures" / f"{name}.png").write_bytes(png)
        names.append(name)
    published = sum(r.entry.published for r in board.rows)
    counts = {"published": published, "runs": len(board.rows) - published}
    dates = sorted(r.entry.date for r in board.rows if r.entry.date)
    write_page(
        stage / "index.html",
        render_page(
            WEB,
            "index.html.j2",
            board=board,
            root=".",
            counts=counts,
            date=dates[-1] if dates else None,
            figures=names,
            pages=pages,
        ),
    )
    pools = {p.id: p for p in board.pools}
    for row in board.rows:
        if not row.entry.published:
            folder = stage / "runs" / pages[row.entry.id]
            folder.mkdir(parents=True, exist_ok=True)
            write_run(folder, row, board, pools[row.pool].title, samples)


# -- the folder -------------------------------------------------------------------------------------------------------


def _replaceable(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output '{output}' is a file.")
    if is_empty(output):
        return
    try:
        ours = json.loads((output / "table.json").read_text(encoding="utf-8"))["generator"] == MARK
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"--output '{output}' holds files that no leaderboard wrote. Give a new folder or an empty one."
        )
