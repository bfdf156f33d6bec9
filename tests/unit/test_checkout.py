"""What git holds: records and tables, no generated pages; the pages of the study can be built again."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def test_no_generated_page_or_drawing_library_is_committed() -> None:
    pages = [name for name in tracked() if re.search(r"(\.html|vega\.js|/data/[^/]+\.js)$", name)]
    assert pages == []


def test_the_checkout_stays_small() -> None:
    size = sum((ROOT / name).stat().st_size for name in tracked() if (ROOT / name).is_file())
    assert size < 8_000_000


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("leaderboards/**/*.md")], ids=str
)
def test_links_between_documents_resolve(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("https://", "http://")):
            file, _, part = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {link}"
            if part:
                heads = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), flags=re.M)
                anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
                assert part in anchors, f"{page.name}: {link}"


def test_the_pages_of_the_study_are_built_whole(tmp_path: Path) -> None:
    site = tmp_path / "site"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "study_site.py"), str(site)], check=True, cwd=ROOT)
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"#:]+)["#]', page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.relative_to(site)}: {link}"
    board = (site / "leaderboard" / "index.html").read_text(encoding="utf-8")
    assert "smollm2-ru" in board
    assert (site / "leaderboard" / "figures" / "heat.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(site.glob("leaderboard/runs/*/samples.html"))) == 12
    report = (site / "report" / "index.html").read_text(encoding="utf-8")
    assert "instruct/ru, conversion, calibrated" in report
