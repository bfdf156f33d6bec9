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
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darumeru.errors import UserError
from darumeru.extras import need
from darumeru.files import fingerprint, slug
from darumeru.leaderboard.board import Board, Row, make_board, to_frame
from darumeru.leaderboard.load import (
    About,
    Entry,
    Problem,
    collect,
    data_title,
    describe,
    distinct_names,
    read_about,
    read_published,
    read_run,
    suite_groups,
    workers,
)
from darumeru.leaderboard.tables import label, to_latex, to_markdown
from darumeru.record.run import Run, Sample

if TYPE_CHECKING:
    import jinja2

WEB = Path(__file__).parent / "web"
MARK = "darumeru leaderboard"
PACKAGES = ("altair", "vl_convert", "pandas", "scipy", "threadpoolctl")
"""What a board needs of the extra `leaderboard`."""
PIECE = 200
"""Samples in a script file."""
PIECE_CHARACTERS = 1_000_000


@dataclass(frozen=True)
class Built:
    """What was built."""

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
        paths: folders of runs, or folders that hold them.
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
    folders = collect(paths)
    _replaceable(output)
    with _staged(output) as stage:
        entries, problems, pages = _read_all(folders, stage if samples else None, processes)
        named = distinct_names([describe(e, known) for e in entries])
        named += [describe(e, known) for e in read_published()] if published else []
        if not named:
            detail = f" The first: {problems[0].name}: {problems[0].reason}" if problems else ""
            raise UserError(f"Nothing to show: none of {len(folders)} runs can be read.{detail}")
        board = make_board(named, suite_groups(named), problems, baseline, title)
        write_site(board, stage, pages, samples)
    return Built(output, board)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read_all(
    folders: Sequence[Path], stage: Path | None, processes: int | None
) -> tuple[list[Entry], list[Problem], dict[str, str]]:
    """All runs, each once; their samples' pieces are written on the way. The last is each entry's page folder by its id."""
    jobs, problems = _jobs(folders)
    count = min(processes or workers(), len(jobs) // 8 + 1)
    arguments = [(path, None if stage is None else stage / "runs" / page) for path, page in jobs]
    entries: list[Entry] = []
    pages: dict[str, str] = {}
    results: Iterator[Entry | Problem]
    if count == 1:
        results = map(_read_one, arguments)
        found = list(results)
    else:
        with ProcessPoolExecutor(count, initializer=_alone) as pool:
            found = list(pool.map(_read_one, arguments, chunksize=4))
    for (_, page), result in zip(jobs, found, strict=True):
        if isinstance(result, Problem):
            problems.append(result)
        elif result.id in pages:
            problems.append(Problem(result.name, f"Another run has the same id '{result.id}'."))
        else:
            entries.append(result)
            pages[result.id] = page
    return entries, problems, pages


def _jobs(folders: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[Problem]]:
    """Run folders with the names of their pages. Of copies of a record the finished one, or the first, is taken."""
    chosen: dict[str, Path] = {}
    names: dict[str, str] = {}
    problems = []
    for path in folders:
        try:
            header = Run(path).header
            key = str(header.get("id") or fingerprint(header))
            name = str(header["model"]["name"])
        except (UserError, KeyError, TypeError, AttributeError) as error:
            reason = (
                str(error) if isinstance(error, UserError) else f"header.json is not as a run writes it ({error!r})."
            )
            problems.append(Problem(path.name, reason))
            continue
        if key not in chosen or (Run(path).complete and not Run(chosen[key]).complete):
            chosen[key], names[key] = path, name
    pages = {key: f"{slug(names[key])[:50]}-{slug(key)[:10]}" for key in chosen}
    return [(path, pages[key]) for key, path in chosen.items()], problems


def _alone() -> None:
    """Set up a reading process: one thread of linear algebra, since there is a process for each core, and no search for
    cycles, of which millions of small records have none."""
    import gc

    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    gc.disable()


def _read_one(argument: tuple[Path, Path | None]) -> Entry | Problem:
    path, folder = argument
    result = read_run(path)
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


# -- samples ----------------------------------------------------------------------------------------------------------


# One encoder for all: json.dumps would make a new one for each of thousands of files.
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode


def script(name: str, value: Any) -> str:
    """A script file that hands a value to the page.

    It stays text in whatever HTML it may be put: `<`, `>`, `&` and the two line ends that only JavaScript knows are escaped.
    """
    text = _dumps(value)
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return f"daru({json.dumps(name)},{text});\n"


def piece_name(task: str) -> str:
    """The name of a task's files."""
    safe = slug(task)
    return safe if safe == task else f"{safe}-{fingerprint(task)[:8]}"


def _mark(sample: Sample, primary: Sequence[str]) -> float:
    score = sample["score"]
    return float(score[primary[0]] if len(primary) == 1 else sum(score[m] for m in primary) / len(primary))


def _shown(sample: Sample, mark: float) -> dict[str, Any]:
    """What the page shows of a sample."""
    return {
        "i": sample["id"],
        "m": round(mark, 4),
        "g": sample["gold"],
        "r": sample["pred"],
        "c": sample["stratum"] or sample["cluster"],
        "s": {k: v if isinstance(v, int) or v in (0.0, 1.0) else round(v, 4) for k, v in sample["score"].items()},
        "x": sample["extra"],
        "q": [
            {
                "p": request["prompt"],
                "n": request["prompt_tokens"],
                "f": request["num_fewshot"],
                "t": request["truncated"],
                "a": request["answer"].get("text"),
                "e": request["answer"].get("finish"),
                "k": len(request["answer"].get("tokens") or ()),
                "l": [f"{v:.3f}" for v in request["answer"].get("logprobs") or ()],
            }
            for request in sample["requests"]
        ],
    }


def write_pieces(folder: Path, entry: Entry, samples: Mapping[str, Sequence[Sample]]) -> None:
    """A run's samples as script files, the worst first, and an index of their scores so that only what is needed is loaded."""
    folder.mkdir(parents=True, exist_ok=True)
    index = []
    for task, rows in samples.items():
        primary = entry.tasks[task].notes["primary"]
        marked = sorted(((_mark(s, primary), s) for s in rows), key=lambda pair: pair[0])
        name, pieces, piece, size = piece_name(task), [], [], 0
        for mark, sample in marked:
            piece.append(_shown(sample, mark))
            size += sum(len(r["prompt"]) for r in sample["requests"])
            if len(piece) == PIECE or size > PIECE_CHARACTERS:
                pieces.append(piece)
                piece, size = [], 0
        pieces += [piece] if piece else []
        for number, part in enumerate(pieces):
            _write(folder / f"{name}-{number}.js", script(f"{name}/{number}", part))
        index.append(
            {"task": task, "file": name, "metrics": primary, "sizes": [len(p) for p in pieces],
             "marks": [round(m, 3) for m, _ in marked]}
        )  # fmt: skip
    _write(folder / "index.js", script("index", {"model": entry.name, "tasks": index}))


def _write(path: Path, text: str) -> None:
    """Plain writing: the whole site is put in its place at once, when it is done."""
    # A lone surrogate, which JSON can carry and UTF-8 cannot, becomes a question mark.
    path.write_bytes(text.encode("utf-8", "replace"))


# -- writing ----------------------------------------------------------------------------------------------------------


@cache
def _templates() -> jinja2.Environment:
    import jinja2

    loader = jinja2.FileSystemLoader(WEB)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["score"] = lambda v: "—" if v is None else f"{v:.3f}"
    environment.filters["thousands"] = lambda v: "—" if v is None else f"{v:,}".replace(",", "\u202f")
    return environment


def render_page(name: str, **values: Any) -> str:
    """A page from its template; everything put in is escaped."""
    return str(_templates().get_template(name).render(**values))


def write_assets(folder: Path, board: bool = True) -> None:
    """Style and scripts of a site with a board; without one, what a page alone needs (arena, comparison, report)."""
    from darumeru.leaderboard.figures import script as vega

    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(WEB.iterdir()):
        if file.suffix in (".css", ".svg") or file.name == "common.js" or (board and file.suffix == ".js"):
            shutil.copyfile(file, folder / file.name)
    if board:
        _write(folder / "vega.js", vega())


def write_site(board: Board, stage: Path, pages: Mapping[str, str], samples: bool) -> None:
    """All files of the site but the samples."""
    from darumeru.leaderboard.figures import render, static_figures

    write_assets(stage / "assets")
    (stage / "data").mkdir()
    _write(stage / "data" / "board.js", script("board", board_json(board, pages)))
    frame = to_frame(board)
    _write(stage / "table.csv", frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    _write(stage / "table.md", to_markdown(board))
    _write(stage / "table.tex", to_latex(board))
    _write(stage / "table.json", json.dumps(table_json(board), ensure_ascii=False, indent=1) + "\n")
    (stage / "figures").mkdir()
    names = []
    for name, specification in static_figures(board).items():
        svg, png = render(specification)
        _write(stage / "figures" / f"{name}.svg", svg)
        (stage / "figures" / f"{name}.png").write_bytes(png)
        names.append(name)
    published = sum(r.entry.published for r in board.rows)
    counts = {"published": published, "runs": len(board.rows) - published}
    dates = sorted(r.entry.date for r in board.rows if r.entry.date)
    _write(
        stage / "index.html",
        render_page(
            "index.html.j2", board=board, root=".", counts=counts, date=dates[-1] if dates else None, figures=names
        ),
    )
    pools = {p.id: p for p in board.pools}
    for row in board.rows:
        if not row.entry.published:
            folder = stage / "runs" / pages[row.entry.id]
            folder.mkdir(parents=True, exist_ok=True)
            _write_run(folder, row, board, pools[row.pool].title, samples)


def _write_run(folder: Path, row: Row, board: Board, data: str, samples: bool) -> None:
    entry = row.entry
    groups = [
        {
            "title": g["title"],
            "score": entry.scores.get(g["name"]),
            "tasks": [t for t in g["tasks"] if t in entry.tasks],
        }
        for g in board.suite["groups"]
    ]
    others = [t for t in entry.tasks if t not in board.tasks]
    if others:
        groups.append({"title": "Other", "score": None, "tasks": others})
    page = render_page(
        "run.html.j2", row=row, entry=entry, board=board, root="../..", groups=groups, data=data, samples=samples,
        facts=run_facts(entry), files={t: piece_name(t) for t in entry.tasks}, label=label(entry),
    )  # fmt: skip
    _write(folder / "index.html", page)
    if samples:
        _write(folder / "samples.html", render_page("samples.html.j2", entry=entry, root="../..", label=label(entry)))


def run_facts(entry: Entry) -> list[tuple[str, list[tuple[str, str]]]]:
    """Settings and surroundings of a run for its page; no paths of the machine that made it."""
    header, record = entry.header, entry.record
    model, where = header["model"], header.get("where") or {}
    engine = record.get("engine") or {}
    training = header.get("training") or {}

    def known(pairs: list[tuple[str, Any]]) -> list[tuple[str, str]]:
        return [(k, str(v)) for k, v in pairs if v not in (None, "", {}, [])]

    shots = [float(t.notes.get("fewshot_used") or 0) for t in entry.tasks.values()]
    seen = f"{min(shots):.1f} – {max(shots):.1f}" if shots and header["num_fewshot"] else ""
    return [
        ("model", known([
            ("name", model["name"]), ("revision", model.get("revision")), ("type", model.get("model_type")),
            ("parameters", f"{model['parameters']:,}" if model.get("parameters") else None),
            ("vocabulary", f"{model['vocab_size']:,}" if model.get("vocab_size") else None),
            ("context", model.get("context_len")),
            ("weights sha256", model.get("weights_sha256")), ("tokenizer sha256", model.get("tokenizer_sha256")),
            ("chat template sha256", model.get("chat_template_sha256")), ("base", entry.base),
            ("vocabulary method", entry.vocab), ("training", entry.method), ("note", entry.note),
            *((f"training {k}", v) for k, v in training.items() if not isinstance(v, dict | list)),
        ])),
        ("setting", known([
            ("mode", header["mode"]), ("few-shot examples asked", header["num_fewshot"]),
            ("few-shot examples used, by task", seen), ("data", data_title(header)), ("limit", header.get("limit")),
            ("longest prompt", header.get("max_prompt_len")), ("seed", header.get("seed")),
            ("generation", ", ".join(f"{k} = {v}" for k, v in (header.get("generation") or {}).items())),
            ("suite", f"{header['suite']['name']} {header['suite'].get('version', '')}"),
        ])),
        ("environment", known([
            ("engine", header["engine"].get("version")), ("dtype", engine.get("dtype") or header["engine"].get("dtype")),
            ("device", engine.get("device") or header["engine"].get("device")),
            ("engine arguments", ", ".join(f"{k}={v}" for k, v in (header["engine"].get("model_args") or {}).items())),
            ("python", where.get("python")), ("platform", where.get("platform")),
            ("packages", ", ".join(f"{k} {v}" for k, v in (where.get("packages") or {}).items())),
            ("wall time", f"{record['wall_seconds']:,.0f} s" if record.get("wall_seconds") else None),
            ("tokens per second", f"{entry.tokens_per_second:,.0f}" if entry.tokens_per_second else None),
            ("started", header.get("started")), ("finished", record.get("finished")), ("run id", header.get("id")),
        ])),
    ]  # fmt: skip


def board_json(board: Board, pages: Mapping[str, str]) -> dict[str, Any]:
    """The board for its page."""
    from darumeru.leaderboard.figures import curve_values, specifications, with_base

    entries = [r.entry for r in board.rows]
    curves = {
        name: with_base(curve_values(entries, board.suite, field), entries, board.suite)
        for name, field in (("steps", "step"), ("tokens", "tokens_seen"))
    }
    return {
        "title": board.title,
        "suite": board.suite,
        "baseline": board.baseline,
        "lower": board.lower,
        "pools": [asdict(p) for p in board.pools],
        "rows": [_row_json(r, board, pages) for r in board.rows],
        "figures": specifications(board),
        "curves": curves,
    }


def _row_json(row: Row, board: Board, pages: Mapping[str, str]) -> dict[str, Any]:
    e = row.entry
    scores: dict[str, list[Any]] = {}
    for column in board.columns:
        if score := e.scores.get(column):
            delta = row.deltas.get(column)
            more = [] if delta is None else [round(delta.value, 4), delta.significant]
            scores[column] = [*(None if v is None else round(v, 4) for v in score), *more]
    model = e.header["model"] if e.header else {}
    return {
        "id": e.id, "name": e.name, "label": label(e), "pool": row.pool, "rank": row.rank, "published": e.published,
        "mode": e.mode, "shots": e.num_fewshot, "base": e.base, "vocab": e.vocab, "method": e.method, "note": e.note,
        "url": e.url, "spt": [None if v is None else round(v, 3) for v in e.symbols_per_token],
        "params": model.get("parameters"), "vsize": model.get("vocab_size"),
        "tps": None if e.tokens_per_second is None else round(e.tokens_per_second, 1), "covered": row.covered,
        "date": e.date, "page": f"runs/{pages[e.id]}/index.html" if e.id in pages else None,
        "badges": [[b.kind, b.values, b.level] for b in row.badges], "s": scores,
    }  # fmt: skip


def table_json(board: Board) -> dict[str, Any]:
    """The board for programs."""
    rows = []
    for row in board.rows:
        item = _row_json(row, board, {})
        for key in ("label", "page", "badges", "s", "spt"):
            del item[key]
        item["scores"] = {
            ("micro_avg" if c == "suite" else c): dict(zip(("value", "low", "high"), row.entry.scores[c], strict=True))
            | ({"difference": asdict(row.deltas[c])} if c in row.deltas else {})
            for c in board.columns
            if c in row.entry.scores
        }
        item["symbols_per_token"] = dict(zip(("ru", "en"), row.entry.symbols_per_token, strict=True))
        item["badges"] = [asdict(b) for b in row.badges]
        rows.append(item)
    return {
        "generator": MARK,
        "title": board.title,
        "suite": board.suite,
        "baseline": board.baseline,
        "pools": [asdict(p) for p in board.pools],
        "rows": rows,
        "not_read": [asdict(p) for p in board.problems],
    }


# -- the folder -------------------------------------------------------------------------------------------------------


def _replaceable(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"--output '{output}' is a file.")
    if not any(output.iterdir()):
        return
    try:
        ours = json.loads((output / "table.json").read_text(encoding="utf-8"))["generator"] == MARK
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(
            f"--output '{output}' holds files that no leaderboard wrote. Give a new folder or an empty one."
        )


@contextmanager
def _staged(output: Path) -> Iterator[Path]:
    """A new folder that takes the place of `output` once it is filled, and leaves no trace if it is not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.", suffix=".tmp"))
    try:
        yield stage
        stage.chmod(0o755)
        old = None
        if output.exists():
            old = stage.with_suffix(".old")
            output.replace(old)
        stage.replace(output)
        if old:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


__all__ = ["About", "Built", "build", "render_page", "script", "write_assets", "write_pieces"]
