"""The Russian README says what the English one says: the same commands, code, figures and links under as many headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def outline(file: str) -> dict[str, list[Any]]:
    """What must not depend on the language; comments in code do, and so do decimal points."""
    text = (ROOT / file).read_text(encoding="utf-8").replace("README.ru.md", "README.md")
    block = re.compile(r"(?:^ {4}[^\n]*\n)+|^```.*?^```", flags=re.M | re.S)
    blocks = [line for found in block.findall(text) for line in found.splitlines()]
    prose = block.sub("", text)
    # A comment begins with two spaces before its sign; what a program printed is compared as it is.
    code = [re.sub(r" {2,}# .*", "", line).rstrip() for line in blocks]
    return {
        "headings": re.findall(r"^#+(?= )", prose, flags=re.M),
        "code": code,
        "links": sorted(re.findall(r"\]\(([^)]+)\)", text)),
        "inline code": sorted({" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose)}),
        "figures": [re.findall(r"\b\d[\d.,e-]*", line) for line in re.findall(r"^\|.*", prose, flags=re.M)],
    }


def test_the_russian_readme_is_in_step() -> None:
    english, russian = outline("README.md"), outline("README.ru.md")
    for part in english:
        assert russian[part] == english[part], part


def test_the_readmes_links_lead_somewhere() -> None:
    for file in ("README.md", "README.ru.md"):
        for link in outline(file)["links"]:
            assert link.startswith("https://") or (ROOT / link).exists(), f"{file}: {link}"
