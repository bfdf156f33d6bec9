"""One real race: a model against itself with weights of few bits, then both full runs, which reuse the race's answers.

    python benchmarks/race_real.py --model models/SmolLM2-135M-Instruct --shared ../shared/data [--bits 4] [--limit 100]

SHARED has the raw public data that `darumeru data import` reads. Each row of a matrix keeps its largest value; all others are
rounded to 2^bits - 1 even steps. Results go to benchmarks/results/race-real.json, the picture to docs/race-real.svg.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from darumeru.data.importers import import_data
from darumeru.evaluation import evaluate
from darumeru.race.contest import Race
from darumeru.race.start import race_models

HERE = Path(__file__).parent
TASKS = ("mmlu_en", "rucola", "cp_sent_en", "cp_sent_ru")


def rounded(model: Path, place: Path, bits: int) -> Path:
    """Copy a model with all matrices of its layers rounded."""
    shutil.copytree(model, place, ignore=shutil.ignore_patterns("*.safetensors"))
    weights = load_file(model / "model.safetensors")
    steps = 2 ** (bits - 1) - 1
    for name, tensor in weights.items():
        if tensor.ndim == 2 and ".layers." in name:
            scale = tensor.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / steps
            weights[name] = (torch.round(tensor.float() / scale) * scale).to(tensor.dtype)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return place


def main() -> None:
    """Race, then run both to the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--tasks", default=",".join(TASKS))
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="race-"))
    damaged = rounded(given.model.resolve(), place / f"{given.model.name}-{given.bits}bit", given.bits)
    bundle, runs = place / "bundle", place / "runs"
    for kind, source, more in (
        ("mmlu", "mmlu_en", {}),
        ("rucola", "rucola", {}),
        ("copy", "corpus/en/ud_sentences.jsonl", {"lang": "en", "rows": given.limit}),
        ("copy", "corpus/ru/ud_sentences.jsonl", {"lang": "ru", "rows": given.limit}),
    ):
        import_data(kind, given.shared / source, bundle, **more)
    settings = {"data": str(bundle), "tasks": tuple(given.tasks.split(",")), "engine": "hf", "limit": given.limit}
    began = time.perf_counter()

    def report(found: Race) -> None:
        pair = found.pairs[0]
        print(
            f"{found.documents:5d} of {found.of}  [{100 * pair.low:+6.1f}, {100 * pair.high:+6.1f}] points", flush=True
        )

    found = race_models([str(given.model), str(damaged)], output=runs, report=report, **settings)
    raced = time.perf_counter() - began
    print(found.pairs[0].sentence(None), f"({raced:.0f} s)", flush=True)
    began = time.perf_counter()
    full = {n: evaluate(m, output=runs, **settings) for n, m in zip(found.names, (given.model, damaged), strict=True)}
    finished = time.perf_counter() - began
    again = race_models([str(run.path) for run in full.values()], output=runs)
    results = {
        **found.to_json(),
        "looks": [[look.documents, *look.pairs[0][2:]] for look in found.looks],
        "seconds_of_the_race": round(raced, 1),
        "seconds_of_the_rest": round(finished, 1),
        "full": {
            name: {
                "score": run.scores.suite.to_json(),
                "tasks": {t: {m: s.value for m, s in r.metrics.items()} for t, r in run.scores.tasks.items()},
            }
            for name, run in full.items()
        },
        "again_from_the_records": again.to_json()["pairs"],
    }
    (HERE / "results" / "race-real.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if found.path:
        shutil.copy(found.path / "race.svg", HERE.parent / "docs" / "race-real.svg")
    print(json.dumps(results["full"], indent=1))


if __name__ == "__main__":
    main()
