"""Build the pages of the study in leaderboards/smollm2-pair-ru: its leaderboard with every sample, and its report.

Usage: python scripts/study_site.py [OUTPUT]

Run by `make study-site`. The report is rendered from `report/report.json.xz`. The run records of the study were not kept,
so its board is unpacked from `board.tar.xz`, the pages as they were built, without what can be made again: the drawing
library and the PNG figures.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

STUDY = Path(__file__).parents[1] / "leaderboards" / "smollm2-pair-ru"


def build_study(output: Path, study: Path = STUDY) -> None:
    """Write `output/leaderboard` and `output/report`; an `output` that is there is replaced.

    Raises:
        FileNotFoundError: `study` lacks `board.tar.xz` or `report/report.json.xz`.
    """
    import vl_convert

    from darumeru.leaderboard.figures import script
    from lep.pipeline.report import render

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".study-") as temporary:
        stage = Path(temporary) / "site"
        board = stage / "leaderboard"
        with tarfile.open(study / "board.tar.xz") as pages:
            pages.extractall(board, filter="data")
        (board / "assets" / "vega.js").write_text(script(), encoding="utf-8")
        for svg in sorted((board / "figures").glob("*.svg")):
            svg.with_suffix(".png").write_bytes(vl_convert.svg_to_png(svg.read_text(encoding="utf-8"), scale=2))
        (stage / "report").mkdir()
        numbers = lzma.decompress((study / "report" / "report.json.xz").read_bytes())
        (stage / "report" / "report.json").write_bytes(numbers)
        render(json.loads(numbers), stage / "report")
        shutil.rmtree(output, ignore_errors=True)
        stage.rename(output)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else STUDY / "site"
    build_study(target)
    print(f"Open {target / 'leaderboard' / 'index.html'} or {target / 'report' / 'index.html'}.")
