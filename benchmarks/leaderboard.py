"""How long a large board takes: N synthetic runs × 17 tasks × 200 samples, and how soon its page can be used.

    python benchmarks/leaderboard.py [--runs 1000] [--documents 200]

A few dozen records are made and each stands for many runs (hard links to the same samples under other names and ids), so
reading profits from the file cache. Prints one JSON object: seconds of wall clock, CPU seconds and the peak memory of the
build with all its processes; then, where chromium and playwright are, the time until the table of index.html is drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

TEXT = "Прочитайте текст и ответьте на вопрос одной буквой, без пояснений. " * 4


def make_runs(folder: Path, runs: int, documents: int, distinct: int) -> None:
    """`runs` records, of which `distinct` differ in their samples."""
    from darumeru.files import file_sha256, fingerprint
    from support.synthetic import make_run

    for number in range(runs):
        source = folder / f"run{number % distinct:04d}"
        if number < distinct:
            skill = 0.3 + 0.4 * number / distinct
            make_run(source, f"model-{number}", skill, number, documents, text=TEXT, resamples=100)
            continue
        target = folder / f"run{number:04d}"
        (target / "samples").mkdir(parents=True)
        for file in ("scores.json", *(f"samples/{p.name}" for p in (source / "samples").iterdir())):
            os.link(source / file, target / file)
        header = json.loads((source / "header.json").read_text(encoding="utf-8"))
        header["model"]["name"] = f"model-{number}"
        header["id"] = fingerprint(number)
        (target / "header.json").write_text(json.dumps(header), encoding="utf-8")
        manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
        manifest["files"]["header.json"] = file_sha256(target / "header.json")
        (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def resident(pid: int) -> int:
    """Memory of a process and its children in bytes; pages that they share are counted once for each (an upper bound)."""
    total = 0
    try:
        total = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            total += resident(int(child))
    except (OSError, ValueError, IndexError):
        pass
    return total


def page_seconds(page: Path) -> float | None:
    """Seconds from opening the page until its rows are drawn; None without a browser."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        began = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector("#board tbody tr[data-id]", timeout=60_000)
        tab.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        taken = time.perf_counter() - began
        browser.close()
    return taken


def main() -> None:
    """Make the runs, build the board, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--distinct", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where runs and site are written [a temporary folder]")
    options = parser.parse_args()
    from darumeru.leaderboard import build

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        began = time.perf_counter()
        make_runs(folder / "runs", options.runs, options.documents, min(options.distinct, options.runs))
        making = time.perf_counter() - began
        peak, done = [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                peak[0] = max(peak[0], resident(os.getpid()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        load = os.getloadavg()[0]
        before = [sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        began = time.perf_counter()
        built = build([folder / "runs"], folder / "site")
        wall = time.perf_counter() - began
        after = [sum(resource.getrusage(w)[:2]) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        done.set()
        watcher.join()
        seconds = page_seconds(folder / "site" / "index.html")
        result = {
            "runs": options.runs,
            "rows": len(built.board.rows),
            "problems": len(built.board.problems),
            "documents": options.documents,
            "making_seconds": round(making, 1),
            "build_wall_seconds": round(wall, 1),
            "build_cpu_seconds": round(sum(after) - sum(before), 1),
            "peak_memory_mib": round(peak[0] / 2**20),
            "site_mib": round(sum(p.stat().st_size for p in (folder / "site").rglob("*") if p.is_file()) / 2**20),
            "board_js_mib": round((folder / "site" / "data" / "board.js").stat().st_size / 2**20, 1),
            "page_seconds": None if seconds is None else round(seconds, 2),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(load, 1),
        }
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
