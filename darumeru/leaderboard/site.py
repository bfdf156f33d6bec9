"""The site: a folder of static files that works from disk and without any network.

    index.html                 the board
    table.md .csv .json .tex   the same as data; .parquet with types
    feed.json                  what changed since earlier builds (JSON Feed 1.1)
    figures/                   SVG and PNG
    assets/                    style, scripts, and the drawing library, once
    data/board.js              the rows of the board
    runs/RUN/index.html        a run; samples.html and data/ beside it hold its samples

A page that is opened from disk may not `fetch`, so all data are scripts that call `daru(name, value)`.
The site is built beside its place and put there when it is whole.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from darumeru.errors import UserError
from darumeru.extras import need
from darumeru.files import is_empty, staged
from darumeru.leaderboard.about import describe, distinct_names, read_about, unused
from darumeru.leaderboard.board import Board, as_cells, make_board, to_frame
from darumeru.leaderboard.data import MARK, board_json, table_json
from darumeru.leaderboard.feed import feed_json
from darumeru.leaderboard.load import gather, import_all, suite_of
from darumeru.leaderboard.means import members_of
from darumeru.leaderboard.pages import WEB, write_run
from darumeru.leaderboard.published import PUBLISHED_SUITE, read_published
from darumeru.leaderboard.reading import Reader
from darumeru.leaderboard.tables import to_latex, to_markdown
from darumeru.web.pages import render_page, script, write_assets, write_page

PACKAGES = ("altair", "vl_convert", "pandas", "threadpoolctl")
"""What a board needs of the extra `leaderboard`."""


@dataclass(frozen=True)
class Built:
    """Result of a build."""

    path: Path
    board: Board
    unused: Sequence[str] = ()
    """Names and ids of `about` that fit no row."""

    @property
    def remarks(self) -> list[str]:
        """Return what whoever built it must know, in sentences."""
        lost = [f"Not shown: {problem.name}: {problem.reason}" for problem in self.board.problems]
        return lost + [f"--about names '{key}', which is no model and no run id of this board." for key in self.unused]


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
    url: str | None = None,
    reader: Reader | None = None,
) -> Built:
    """Build a leaderboard from runs.

    Args:
        paths: folders of runs, or folders that hold them; results of lm-eval with samples and records of Every Eval Ever too.
        output: folder of the site; one that an earlier call wrote is replaced.
        baseline: model against which every score is held.
        published: whether the paper's rows are shown, where the board's suite is the paper's.
        title: of the page.
        about: YAML file of what else is known of the models, see `read_about`.
        samples: whether the site holds the samples of the runs.
        processes: that read runs at once.
        url: address at which the site will be, for the links of its feed.
        reader: one that earlier builds into the same folder used, so that only what has changed is read.

    Raises:
        UserError: no run can be read and there are no published rows; `output` holds something else; an unknown baseline;
            the extra `leaderboard` is not installed; `url` is none.
    """
    need(*PACKAGES, extra="leaderboard")
    if url is not None and not url.startswith(("http://", "https://")):
        raise UserError(f"--url '{url}' must begin with https:// or http://.")
    reader = reader or Reader(processes)
    known = read_about(about) if about else {}
    folders, others = gather(paths)
    _replaceable(output)
    with staged(output) as stage, tempfile.TemporaryDirectory() as records:
        imported, refused = import_all(others, Path(records))
        entries, problems, pages = reader.read([*folders, *imported], stage if samples else None, output)
        problems += refused
        rows = list(entries)
        named = distinct_names([describe(e, known) for e in rows])
        suite = suite_of(named)
        if published and suite.name == PUBLISHED_SUITE:
            rows += (reference := read_published())
            named += [describe(e, known) for e in reference]
        if not named:
            detail = f" The first: {problems[0].name}: {problems[0].reason}" if problems else ""
            raise UserError(f"Nothing to show: none of {len(folders) + len(others)} runs can be read.{detail}")
        board = make_board(named, suite, problems, baseline, title)
        write_site(board, stage, pages, samples)
        feed = feed_json(table_json(board), output, url)
        write_page(stage / "feed.json", json.dumps(feed, ensure_ascii=False, indent=1) + "\n")
    reader.keep()
    return Built(output, board, unused(known, rows))


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
    write_page(stage / "table.csv", as_cells(frame).to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    frame.to_parquet(stage / "table.parquet", index=False)
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
            counted=len(members_of(board.suite)["suite"]),
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
