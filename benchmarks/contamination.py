"""`darumeru contaminated`: CPU seconds and memory of a search of many texts for a suite of real size, and whether it is right.

    python benchmarks/contamination.py [--texts 1000000] [--shared ../shared/data] [--place FOLDER]

The suite has the mini bundle's documents, real ones of shared data, and sentences and paragraphs to copy of one half of its
Russian prose, about 69 thousand in all. The corpus is the other half in pieces of 1,500 characters, again and again, in which
300 documents are put: as they are, in capitals, without ё, without punctuation. Whatever is found beside these must be a true
overlap, by a check of its own. Prints one line of JSON.
"""

import argparse
import gzip
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "darumeru" / "data" / "mini"
PLANTED = 300
PIECE = 1500


def darumeru(*args: object) -> None:
    """Run a command of this checkout."""
    code = "from darumeru.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def save(path: Path, texts: list[str]) -> Path:
    """Write texts as JSON lines."""
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts), encoding="utf-8")
    return path


def make_bundle(place: Path, shared: Path, prose: list[str]) -> Path:
    """Write the bundle that is searched for."""
    bundle = place / "bundle"
    shutil.copytree(MINI, bundle)
    half = save(place / "half.jsonl", prose)
    for kind, source, datasets in (
        ("use", shared / "use" / "train.jsonl", ["use"]),
        ("copy", half, ["cp_sent_ru", "cp_para_ru"]),
    ):
        for dataset in datasets:
            shutil.rmtree(bundle / dataset)
        darumeru("data", "import", kind, source, "--output", bundle, "--rows", 55_000)
    return bundle


def planted(bundle: Path, rng: random.Random) -> list[tuple[str, int, str]]:
    """Return (task, document, text) of documents to put into the corpus, in a random typing."""
    found = []
    for task in ("cp_sent_ru", "cp_para_ru"):
        rows = [json.loads(line) for line in (bundle / task / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        long = [i for i, row in enumerate(rows) if len(re.findall(r"\w+", row["outputs"])) >= 14]
        for i in rng.sample(long, PLANTED // 2):
            text = rows[i]["outputs"]
            ways = (
                text,
                text.upper(),
                text.replace("ё", "е"),
                re.sub(r"[^\w\s-]", " ", text),
                text.replace(" ", "\n", 4),
            )
            found.append((task, i, rng.choice(ways)))
    return found


def write_corpus(path: Path, pieces: list[str], count: int, put: list[str], rng: random.Random) -> int:
    """Write the corpus; return its characters."""
    places = dict(zip(rng.sample(range(count), len(put)), put, strict=True))
    characters = 0
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            text = pieces[number % len(pieces)]
            if number in places:
                text = f"{text[:700]}\n\n{places[number]}\n\n{text[700:]}"
            characters += len(text)
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return characters


def plain(text: str) -> str:
    """Return a text as its words, by other means than the search's."""
    letters = (c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c) and c != "\u00ad")
    return " ".join(re.findall(r"[^\W_]+", "".join(letters)))


def main() -> None:
    """Make, search, check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--place", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.place) as folder:
        place, rng = Path(folder), random.Random(0)
        with gzip.open(given.shared / "corpus" / "ru" / "ruslit_prose.jsonl.gz", "rt", encoding="utf-8") as file:
            prose = [json.loads(line)["text"] for line in file]
        half = len(prose) // 2  # in the order of books, so that no book is in both
        pieces = [text[i : i + PIECE] for text in prose[half:] for i in range(0, len(text) - PIECE // 2, PIECE)]
        bundle = make_bundle(place, given.shared, prose[:half])
        put = planted(bundle, rng)
        corpus = place / "corpus.jsonl"
        characters = write_corpus(corpus, pieces, given.texts, [text for _, _, text in put], rng)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        output = place / "found.json"
        darumeru("contaminated", "--corpus", corpus, "--data", bundle, "--output", output)
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        found: dict[str, Any] = json.loads(output.read_text())
        pairs = {(task, f["id"]): f for task, t in found["tasks"].items() for f in t["found"]}
        wanted = {(task, i) for task, i, _ in put}
        others = {pair: f for pair, f in pairs.items() if pair not in wanted}
        everything = plain("\n".join(pieces)) + " " + plain("\n".join(text for _, _, text in put))
        true = [pair for pair, f in others.items() if f" {f['words']} " in f" {everything} "]
        print(
            json.dumps(
                {
                    "texts": found["texts"],
                    "characters": characters,
                    "documents": sum(t["documents"] for t in found["tasks"].values()),
                    "searched": sum(t["searched"] for t in found["tasks"].values()),
                    "planted": len(wanted),
                    "planted_found": len(wanted & pairs.keys()),
                    "others_found": len(others),
                    "others_that_are_true_overlaps": len(true),
                    "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
                    "wall_seconds": round(wall, 1),
                    "peak_gib": round(after.ru_maxrss / 2**20, 2),  # of the largest child, which the search is
                }
            )
        )


if __name__ == "__main__":
    main()
