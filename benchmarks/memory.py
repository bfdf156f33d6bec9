"""Peak memory and bytes written of the stages of LEP on a made-up pair of models, beside what `lep run --dry-run` states.

    python benchmarks/memory.py make PLACE [--dim 1536] [--layers 16]   # a pair of random weights in bfloat16
    python benchmarks/memory.py auto PLACE                   # lep propagate --method auto
    python benchmarks/memory.py merge PLACE                  # what calibration ends with: an adapter on all layers, merged
    python benchmarks/memory.py pretrain PLACE [--train new-rows+lora] [--quantize 8bit]

Every measurement is a process of its own. Memory is what the process holds that the system cannot take back (RssAnon of
/proc, sampled every 20 ms), and with the pages of files that it may (VmHWM); written is what went to files (wchar). Needs
models/SmolLM2-135M-Instruct for its tokenizer. Prints one line of JSON.
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = ROOT / "models" / "SmolLM2-135M-Instruct"
WORDS = [
    "мороз",
    "и",
    "солнце",
    "день",
    "чудесный",
    "ещё",
    "ты",
    "дремлешь",
    "друг",
    "прелестный",
    "пора",
    "красавица",
    "проснись",
]
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))]


def make(place: Path, dim: int, layers: int) -> None:
    """Write base, adapted (2,000 rows more) and instruct (other embeddings) into a folder, and texts."""
    import torch
    import transformers

    from lep import extend_vocabulary, initialise
    from lep.model.checkpoint import copy_tokenizer

    place.mkdir(parents=True, exist_ok=True)
    corpus = place / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text * 40}, ensure_ascii=False) + "\n" for text in TEXTS * 20))
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=dim, intermediate_size=dim * 8 // 3, num_hidden_layers=layers,
        num_attention_heads=dim // 64, num_key_value_heads=dim // 64, max_position_embeddings=2048,
        tie_word_embeddings=True, dtype="bfloat16", bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    for name in ("base", "instruct"):
        model.save_pretrained(place / name, max_shard_size="1GB")
        copy_tokenizer(TOKENIZER, place / name)
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(1.1)
    extend_vocabulary(place / "base", [corpus], place / "tokenizer", add=50, min_count=1)
    initialise(place / "base", place / "tokenizer", place / "adapted", link=True)


def auto(place: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Propagate by every method, and keep the best."""
    from lep import propagate

    manifest = propagate(
        place / "base", place / "adapted", place / "instruct", place / "out", method="auto", texts=TEXTS[:2], force=True
    )
    return {"scores": manifest["measures"]["bits_per_byte"]}


def merge(place: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Merge an adapter with a first step's B, all layers and the embedding, into a new folder; training is not measured."""
    import numpy as np
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from lep.calibration import merge
    from lep.calibration.chat import Example
    from lep.calibration.lora import add_lora
    from lep.calibration.recipe import choose_recipe
    from lep.model.checkpoint import open_checkpoint
    from lep.model.folders import new_folder

    adapter = place / "adapter"
    source, recipe = open_checkpoint(place / "instruct"), choose_recipe("instruct", {"train_embeddings": True})
    if not adapter.exists():
        wrapped = add_lora(AutoModelForCausalLM.from_pretrained(source.folder, dtype="auto"), recipe)
        with torch.no_grad():
            for name, value in wrapped.named_parameters():
                if "lora_B" in name:
                    value.normal_(std=1e-3)
        adapter.mkdir()
        tensors = {n: v.detach().clone() for n, v in get_peft_model_state_dict(wrapped).items()}
        save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
        return {"made": "adapter; run again"}
    with torch.device("meta"):
        wrapped = add_lora(AutoModelForCausalLM.from_config(transformers_config(source.folder)), recipe)
    ids = np.arange(10, 138)
    samples = [Example(ids + n, np.ones(len(ids), dtype=bool)) for n in range(4)]
    with new_folder(place / "merged", force=True) as folder:
        found = merge.merge(source, recipe, adapter, folder, merge.stored_tensors(source, wrapped), samples)
    return {"comparison": [str(part) for part in found]}


def transformers_config(folder: Path) -> Any:
    """Return a folder's configuration."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def pretrain(place: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train three steps."""
    from lep import pretrain
    from lep.pretraining.settings import settings_of

    changes = {"quantize": arguments.quantize} if arguments.quantize else {}
    settings = settings_of(
        train=arguments.train, max_steps=3, total_batch_size=2, per_device_train_batch_size=2, block_size=128,
        warmup_steps=1, save_steps=3, dtype=arguments.dtype, device="cpu", **changes,
    )  # fmt: skip
    pretrain(place / "adapted", [place / "corpus.jsonl"], place / "trained", settings=settings, force=True)
    return {}


def measured(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run something; seconds, the peaks of memory and the bytes written, in GB."""
    peak, stop = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, status("RssAnon"))

    before = written()
    thread = threading.Thread(target=watch)
    thread.start()
    began, processor = time.perf_counter(), time.process_time()
    try:
        found = run()
    finally:
        stop.set()
        thread.join()
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "peak_own_gb": round(peak / 1e9, 3),
        "peak_with_files_gb": round(status("VmHWM") / 1e9, 3),
        "written_gb": round((written() - before) / 1e9, 3),
        **found,
    }


def status(key: str) -> int:
    """Bytes of a line of this process's status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def written() -> int:
    """Bytes that this process wrote to files."""
    line = next(line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("wchar"))
    return int(line.split()[1])


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "auto", "merge", "pretrain"])
    parser.add_argument("place", type=Path)
    parser.add_argument("--dim", type=int, default=1536)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--train", default="new-rows+lora")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize")
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.place, arguments.dim, arguments.layers)
        return
    stage = {"auto": auto, "merge": merge, "pretrain": pretrain}[arguments.what]
    json.dump({"what": arguments.what, **measured(lambda: stage(arguments.place, arguments))}, sys.stdout)
    print()


if __name__ == "__main__":
    main()
