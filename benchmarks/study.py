"""A grid of design choices on real texts: what `lep study` says of SmolLM2-135M-Instruct in another language.

    python benchmarks/study.py ru --model DIR --output DIR --workers 2
    python benchmarks/study.py ru --model DIR --second DIR --output DIR --workers 2
    python benchmarks/study.py el --model DIR --output DIR --workers 2

Prepares texts, puts the grid (benchmarks/study/LANGUAGE.yaml) beside them and runs `lep study` with whatever options follow
(--dry-run, --budget 2h, --set …). The same command resumes.

ru: prose of the shared data folder (DARUMERU_SHARED; Russian classics, public domain), with a quarter of modern sentences and
paragraphs (Universal Dependencies, XQuAD: CC BY-SA). Held out: news (NTREX, CC BY-SA), a document each.
el: the Greek help of LibreOffice (MPL-2.0), from the Debian package libreoffice-help-el, which apt-get downloads; no text of it
is in this repository. Held out: pages of other parts of it. Give another language of those packages a grid to study it.
English, for both: Project Gutenberg books of the shared data folder are replayed, its news are held out.
"""

from __future__ import annotations

import argparse
import gzip
import html.parser
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lep.tokenizer.scripts import LANGUAGES, count_script

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data"
CHARACTERS = 2_000_000
"""Of the training text."""
DOCUMENT = 800
"""Characters of a held-out document: many short ones say more than a few long ones."""


def russian(place: Path) -> None:
    """Write the Russian texts."""
    draw = random.Random(0)
    with gzip.open(DATA / "corpus/ru/ruslit_prose.jsonl.gz", "rt", encoding="utf-8") as lines:
        prose = [json.loads(line)["text"] for line in lines]
    sentences = texts_of(DATA / "corpus/ru/ud_sentences.jsonl")
    modern = ["\n".join(sentences[i : i + 20]) for i in range(0, len(sentences), 20)]
    modern += texts_of(DATA / "corpus/ru/xquad_paragraphs.jsonl")
    draw.shuffle(prose)
    mixed = [*modern, *shortened(prose, CHARACTERS - sum(map(len, modern)))]
    draw.shuffle(mixed)
    write(place / "train.jsonl", mixed)
    write(place / "held-out.jsonl", news("ru"))


def from_help(language: str, place: Path) -> None:
    """Write texts from the help of LibreOffice in a language."""
    package = f"libreoffice-help-{language}"
    folder = place / "package"
    folder.mkdir(exist_ok=True)
    if not (folder / "usr").is_dir():
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)
        subprocess.run(["dpkg", "-x", *map(str, folder.glob("*.deb")), str(folder)], check=True)
    scripts, seen = LANGUAGES[language], set[str]()
    training, held_out = [], []
    for file in sorted(folder.glob("usr/share/libreoffice/help/*/text/**/*.html")):
        page = Paragraphs()
        page.feed(file.read_text(encoding="utf-8"))
        kept = []
        for line in page.lines():
            letters = sum(map(str.isalpha, line))
            # Parts that nobody translated are English.
            if line not in seen and len(line) > 40 and count_script(line, scripts) > 0.6 * letters:
                seen.add(line)
                kept.append(line)
        if kept:
            (held_out if "sbasic" in file.parts or "simpress" in file.parts else training).append("\n".join(kept))
    random.Random(0).shuffle(training)
    random.Random(1).shuffle(held_out)
    write(place / "train.jsonl", shortened(training, CHARACTERS))
    write(place / "held-out.jsonl", documents(held_out))


class Paragraphs(html.parser.HTMLParser):
    """The paragraphs, headings and cells of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.silent = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Begin a line where a block begins."""
        self.silent += tag in ("script", "style", "head")
        if tag in ("p", "h1", "h2", "h3", "li", "td", "div", "br"):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """Listen again behind a script."""
        self.silent -= tag in ("script", "style", "head")

    def handle_data(self, data: str) -> None:
        """Keep what is read."""
        if not self.silent:
            self.parts.append(" ".join(data.split()) + (" " if data[-1:].isspace() else ""))

    def lines(self) -> Iterator[str]:
        """Yield the lines."""
        yield from (" ".join(line.split()) for line in "".join(self.parts).split("\n"))


def english(place: Path) -> None:
    """Write the English texts."""
    with gzip.open(DATA / "corpus/en/gutenberg_prose.jsonl.gz", "rt", encoding="utf-8") as lines:
        books = [json.loads(line)["text"] for line in lines]
    random.Random(0).shuffle(books)
    write(place / "replay.jsonl", shortened(books, CHARACTERS))
    write(place / "english.jsonl", news("en"))


def news(language: str) -> list[str]:
    """Return the beginnings of news, in a random order that is the same for all languages."""
    rows = [json.loads(line) for line in (DATA / "ntrex_ruen/test.jsonl").open(encoding="utf-8")]
    found = [
        "\n".join(row[language] for row in group) for _, group in itertools.groupby(rows, key=lambda row: row["doc"])
    ]
    random.Random(0).shuffle(found)
    return documents(found)


def documents(texts: Iterable[str]) -> list[str]:
    """Return the beginnings of texts."""
    return [text[:DOCUMENT].rpartition(" ")[0] for text in texts if len(text) >= DOCUMENT // 2]


def shortened(texts: Iterable[str], characters: int) -> Iterator[str]:
    """Yield texts up to so many characters."""
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def texts_of(file: Path) -> list[str]:
    """Return the texts of JSON lines."""
    return [json.loads(line)["text"] for line in file.open(encoding="utf-8")]


def write(file: Path, texts: Iterable[str]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("language", choices=sorted(file.stem for file in (ROOT / "benchmarks/study").glob("*.yaml")))
    parser.add_argument("--model", type=Path, required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--second", type=Path, metavar="DIR", help="another base, which makes `base` an axis")
    parser.add_argument("--output", type=Path, required=True)
    options, more = parser.parse_known_args()
    place = options.output / "texts"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "english.jsonl").exists():
        russian(place) if options.language == "ru" else from_help(options.language, place)
        english(place)
    if not (place / "base").exists():
        (place / "base").symlink_to(options.model.resolve())
    if options.second:
        more = [
            "--set",
            f"axes.base={json.dumps([str(base.resolve()) for base in (options.model, options.second)])}",
            *more,
        ]
    shutil.copyfile(ROOT / "benchmarks/study" / f"{options.language}.yaml", place / "grid.yaml")
    command = [
        sys.executable,
        "-m",
        "lep",
        "study",
        str(place / "grid.yaml"),
        "--output",
        str(options.output / "study"),
        *more,
    ]
    raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
