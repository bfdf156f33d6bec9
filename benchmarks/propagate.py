"""Wall time and peak memory of `lep propagate` at real sizes, beside LAPACK's gelsy on the same matrices.

    python benchmarks/propagate.py mistral            # 32,000 x 4096, two matrices; gelsy measured
    python benchmarks/propagate.py llama              # 174,816 x 4096, two matrices; gelsy extrapolated from `mistral`

Checkpoints are made up: rows of normal noise in bfloat16, and an instruct model that is the base times a planted map
plus a little noise. Tokenizers are real: Mistral-7B-v0.1's beside a BPE of 32,000 Russian and English tokens, Llama-3's
beside itself extended to 174,816. Every measurement is a process of its own, so that its peak memory is its own. gelsy
gets the whole matrices T E_base and T E_inst in memory; `lep` reads them from the folders, and that time counts. Needs
the shared data folder (DARUMERU_SHARED), for llama also scripts/fetch_tokenizers.py. Results go to
benchmarks/results/propagate-*.json.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {
    # base and instruct rows, adapted rows, dim
    "tiny": (32_000, 32_000, 256),
    "mistral": (32_000, 32_000, 4096),
    "llama": (128_256, 174_816, 4096),
}
ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("DARUMERU_SHARED", ROOT.parent / "shared")) / "data"


class Clocks:
    """Wall time, and processor time of all threads, which other work on the machine hardly moves."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Seconds since the start."""
        return {
            "seconds": round(time.perf_counter() - self.wall, 2),
            "processor_seconds": round(time.process_time() - self.processor, 2),
        }


def tokenizers(place: Path, shape: str) -> None:
    """The tokenizers of base, adapted and instruct model.

    mistral: Mistral-7B-v0.1's, and a BPE of the same size trained on Russian and English prose. llama: Llama-3's
    (scripts/fetch_tokenizers.py), and the same extended with 46,560 Russian tokens, as in the paper.
    """
    from lep.model.checkpoint import copy_tokenizer
    from lep.vocab.commands import extend_vocabulary
    from lep.vocab.train import train_vocabulary

    prose = DATA / "corpus" / "ru" / "ruslit_prose.jsonl.gz"
    base = DATA / "tokenizers" / "mistral-7b-v0.1" if shape != "llama" else ROOT / ".cache" / "tokenizers" / "llama3"
    made = place / "tokenizer"
    if shape == "llama":
        extend_vocabulary(base, [prose], made, add=SHAPES[shape][1] - SHAPES[shape][0])
    else:
        english = DATA / "corpus" / "en" / "gutenberg_prose.jsonl.gz"
        train_vocabulary(base, [prose, english], made, kind="bpe", size=SHAPES[shape][1])
    for name, source in (("base", base), ("adapted", made), ("instruct", base)):
        copy_tokenizer(source, place / name)


def make_models(place: Path, shape: str) -> None:
    """Base, adapted and instruct checkpoint of that shape, written in blocks."""
    import torch

    from lep.model.shards import NewTensor, write_shard

    rows, adapted_rows, dim = SHAPES[shape]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": dim,
        "intermediate_size": 2 * dim,
        "num_hidden_layers": 0,
        "num_attention_heads": dim // 128,
        "num_key_value_heads": dim // 128,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    scales = torch.logspace(0, -1.5, dim)  # a spectrum: real embeddings are not white

    def noise(count: int, seed: int, changed: bool) -> Any:
        def blocks() -> Iterator[torch.Tensor]:
            generator = torch.Generator().manual_seed(seed)
            later = torch.Generator().manual_seed(seed + 7)
            planted = torch.randn(dim, 8, generator=torch.Generator().manual_seed(5)) / dim**0.5
            for start in range(0, count, 4096):
                block = torch.randn(min(4096, count - start), dim, generator=generator) * scales * 0.02
                if changed:
                    block += 0.2 * (block @ planted) @ planted.T
                    block += 0.0005 * torch.randn(block.shape, generator=later)
                yield block

        return NewTensor("BF16", (count, dim), blocks)

    for name, count, seed, changed in (
        ("base", rows, 1, False),
        ("adapted", adapted_rows, 3, False),
        ("instruct", rows, 1, True),
    ):
        folder = place / name
        folder.mkdir()
        tensors = {
            "model.embed_tokens.weight": noise(count, seed, changed),
            "lm_head.weight": noise(count, seed + 100, changed),
        }
        write_shard(folder / "model.safetensors", tensors, {"format": "pt"})
        (folder / "config.json").write_text(json.dumps({**config, "vocab_size": count}))


def measure_ours(place: Path) -> dict[str, Any]:
    """The whole command, with the time of each fit inside it."""
    from lep.propagation import matrices
    from lep.propagation.job import propagate
    from lep.propagation.methods import conversion

    fits: list[dict[str, Any]] = []
    real, real_sums = conversion.least_squares, matrices.conversion_sums  # type: ignore[attr-defined]
    began: list[Clocks] = []

    def timed_sums(*arguments: Any) -> Any:
        began.append(Clocks())
        return real_sums(*arguments)

    def timed(*arguments: Any) -> Any:
        fit = real(*arguments)
        fits.append({**began.pop().read(), **fit.summary()})
        np.save(place / f"map{len(fits)}.npy", fit.map)
        return fit

    matrices.conversion_sums, conversion.least_squares = timed_sums, timed  # type: ignore[attr-defined]
    clocks = Clocks()
    propagate(place / "base", place / "adapted", place / "instruct", place / "out", link=True, force=True)
    return {"command": clocks.read(), "fits": fits}


def measure_gelsy(place: Path) -> dict[str, Any]:
    """`torch.linalg.lstsq(driver="gelsy")` in float64 on the embedding matrices that the command fits, in memory."""
    import scipy.sparse
    import torch

    from lep.model.checkpoint import open_checkpoint
    from lep.propagation.alignment import align
    from lep.propagation.matrices import conversion_blocks
    from lep.tokenizer.transfer import build_transfer
    from lep.tokenizer.vocabulary import Vocabulary

    models = [open_checkpoint(place / name) for name in ("base", "adapted", "instruct")]
    vocabularies = [Vocabulary.load(model.folder) for model in models]
    alignment = align(models, vocabularies)
    rows, dim = models[1].embeddings.rows, models[0].embeddings.dim
    transfer = build_transfer(*vocabularies[:2], old_rows=models[0].embeddings.rows, new_rows=rows)
    a, b = torch.empty(rows, dim, dtype=torch.float64), torch.empty(rows, dim, dtype=torch.float64)
    start = 0
    # The rows that the instruct model keeps as its own are not fitted by the command either.
    fitted = np.ones(rows)
    fitted[[index for index in alignment.kept if index < rows]] = 0
    matrix = scipy.sparse.csr_array(
        scipy.sparse.dia_array((fitted[None, :], [0]), shape=(rows, rows)) @ transfer.matrix
    )
    matrix = matrix[np.flatnonzero(np.diff(matrix.indptr) > 0)]
    blocks = conversion_blocks(
        models[0].embeddings.input,
        models[2].embeddings.input,
        matrix,
        alignment.base_to_instruct,
    )
    for left, right in blocks():
        a[start : start + len(left)], b[start : start + len(left)] = torch.from_numpy(left), torch.from_numpy(right)
        start += len(left)
    clocks = Clocks()
    solution = torch.linalg.lstsq(a[:start], b[:start], driver="gelsy").solution
    spent = clocks.read()
    ours = torch.from_numpy(np.load(place / "map1.npy"))
    difference = float(torch.linalg.norm(ours - solution) / torch.linalg.norm(solution))
    return {**spent, "rows": start, "relative_difference_of_the_maps": difference}


def child(part: str, place: Path, shape: str) -> dict[str, Any]:
    """Run one part in a process of its own."""
    command = [sys.executable, __file__, shape, "--part", part, "--place", str(place)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(ours: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """How many times faster one fit is (reading the rows included) than gelsy on matrices in memory."""
    return {key: round(reference[key] / ours[key], 2) for key in ("seconds", "processor_seconds")}


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    load = os.getloadavg()[0]
    return {
        "processor": next(
            (
                line.split(":", 1)[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if "model name" in line
            ),
            platform.processor(),
        ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load_before": round(load, 2),
    }


def main() -> None:
    """Make the models, run the parts, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--part", choices=["make", "ours", "gelsy"])
    parser.add_argument("--place", type=Path)
    parser.add_argument("--no-gelsy", action="store_true")
    arguments = parser.parse_args()
    if arguments.part:
        if arguments.part == "make":
            make_models(arguments.place, arguments.shape)
            tokenizers(arguments.place, arguments.shape)
            result: dict[str, Any] = {}
        else:
            result = measure_ours(arguments.place) if arguments.part == "ours" else measure_gelsy(arguments.place)
        result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3)
        print(json.dumps(result))
        return
    rows, adapted, dim = SHAPES[arguments.shape]
    record: dict[str, Any] = {"shape": arguments.shape, "base_rows": rows, "rows": adapted, "dim": dim}
    record["machine"] = machine()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        child("make", place, arguments.shape)
        record["lep propagate --method conversion, two matrices"] = child("ours", place, arguments.shape)
        if arguments.shape != "llama" and not arguments.no_gelsy:
            record["gelsy, float64, one matrix"] = child("gelsy", place, arguments.shape)
    ours = record["lep propagate --method conversion, two matrices"]
    measured = record.get("gelsy, float64, one matrix")
    if measured:
        record["times_faster"] = compare(ours["fits"][0], measured)
        record["share_of_memory"] = round(ours["peak_gb"] / measured["peak_gb"], 3)
    elif (RESULTS / "propagate-mistral.json").is_file() and arguments.shape == "llama":
        smaller = json.loads((RESULTS / "propagate-mistral.json").read_text())["gelsy, float64, one matrix"]
        scale = adapted / smaller["rows"]
        guessed = {key: round(smaller[key] * scale, 1) for key in ("seconds", "processor_seconds", "peak_gb")}
        record["gelsy, one matrix, EXTRAPOLATED by rows from mistral"] = guessed
        record["times_faster (extrapolated)"] = compare(ours["fits"][0], guessed)
        record["share_of_memory (extrapolated)"] = round(ours["peak_gb"] / guessed["peak_gb"], 3)
    RESULTS.mkdir(exist_ok=True)
    if arguments.shape != "tiny":
        (RESULTS / f"propagate-{arguments.shape}.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
