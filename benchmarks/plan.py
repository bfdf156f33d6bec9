"""Time and memory of the plan of the whole suite: every prompt of 69,139 documents, before a model is loaded.

    python benchmarks/plan.py [--model models/SmolLM2-135M-Instruct] [--shots 0 5] [--scale 1.0] [--bundle FOLDER]

Needs a model folder with a tokenizer; its weights are not read. The rows are made from the built-in mini bundle: its
conversations and fields, filled with other words of its own texts in about the same number. The sizes of MERA's, MMLU's and
RuCoLA's splits are public; summaries and copies share the rest of the total. Each number of examples is planned in a process
of its own, which prints one JSON object: for each phase the seconds of wall clock and of processor time, and the peak of the
process so far. Equal fingerprints say that two versions make the same plan; another version is measured with its folder in
PYTHONPATH.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

SIZES = {
    "rummlu": 10033,
    "mmlu_nlpcoreteam": 14042,  # asked in Russian and in English
    "multiq": 1056,
    "parus": 400,
    "rcb": 438,
    "rwsd": 606,
    "use": 2622,
    "ruopenbookqa": 2338,
    "ruworldtree": 115,
    "rucola": 2787,
    "daru_treeway_eval": 500,  # two tasks
    "cp_sent_en": 4915,
    "cp_para_en": 4915,
    "cp_sent_ru": 4915,
    "cp_para_ru": 4915,
}
"""Test rows of each data set."""

KEPT = {"messages", "outputs", "meta", "subject"}
"""Fields that stay as they are: they hold templates, labels and keys."""


def make_bundle(folder: Path, scale: float) -> None:
    """Write a bundle of the real sizes, times `scale`; the same one in every process."""
    from darumeru.data.bundle import MINI, read_rows
    from darumeru.files import write_jsonl

    subjects = list(runpy.run_path(str(ROOT / "tasks" / "mmlu.py"))["SUBJECTS"])
    for dataset, size in SIZES.items():
        draw = random.Random(dataset)
        for file in sorted((MINI / dataset).glob("*.jsonl")):
            rows = read_rows(file)
            tested = file.stem in ("test", "validation")
            examples = 5 * len(subjects) if dataset == "mmlu_nlpcoreteam" else len(rows)
            words = {name: _words(rows, name) for name in rows[0]}
            made = []
            for number in range(round(size * scale) if tested else examples):
                row = _another(draw, rows[number % len(rows)], words)
                if dataset.startswith("cp_"):
                    row["outputs"] = row["inputs"]["text"]
                if "subject" in row:
                    row["subject"] = subjects[number % len(subjects)]
                made.append(row)
            write_jsonl(folder / dataset / file.name, made)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in _texts(part)]


def _words(rows: list[dict[str, Any]], name: str) -> list[str]:
    return [word for row in rows for text in _texts(row.get(name)) for word in text.split()]


def _another(draw: random.Random, row: dict[str, Any], words: dict[str, list[str]]) -> dict[str, Any]:
    """Return a row whose texts hold other words, and up to a third more or fewer of them."""

    def refill(value: Any, stock: list[str]) -> Any:
        if isinstance(value, dict):
            return {k: refill(v, stock) for k, v in value.items()}
        if isinstance(value, list):
            return [refill(v, stock) for v in value]
        if isinstance(value, str) and value.strip():
            return " ".join(draw.choices(stock, k=max(1, round(len(value.split()) * draw.uniform(0.67, 1.33)))))
        return value

    return {name: value if name in KEPT else refill(value, words[name]) for name, value in row.items()}


def measure(model: str, bundle: str, shots: int) -> dict[str, Any]:
    """Plan once, and return what each phase took."""
    phases: dict[str, dict[str, float]] = {}

    def phase(name: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        phases[name] = {
            "seconds": round(time.perf_counter() - wall, 1),
            "processor": round(time.process_time() - processor, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        return result

    def imports() -> None:
        import darumeru.evaluation
        import darumeru.task  # noqa: F401

    phase("import", imports)
    from darumeru.engines.hf.batches import shared_prefixes
    from darumeru.evaluation import prepare
    from darumeru.inference import longest_input, requests_sha256
    from darumeru.settings import settings_of

    plan = phase(
        "prompts", lambda: prepare(settings_of(model=model, data=bundle, num_fewshot=shots, engine="hf", device="cpu"))
    )
    sha256 = phase("fingerprint", lambda: requests_sha256(plan.requests))
    longest = phase("longest", lambda: longest_input(plan.requests))
    choices = [r for r in plan.requests if r.kind == "choose"]
    groups = phase("order by prefix", lambda: shared_prefixes(choices))
    return {
        "shots": shots,
        "documents": sum(map(len, plan.documents.values())),
        "requests": len(plan.requests),
        "prompt_tokens": sum(r.prompt_tokens for r in plan.requests),
        "longest": longest,
        "groups": len(groups),
        "requests_sha256": sha256,
        "phases": phases,
    }


def main() -> None:
    """Make the bundle, and measure each number of examples in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "SmolLM2-135M-Instruct"))
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the documents")
    parser.add_argument("--bundle", type=Path, help="where the bundle is made, or lies from an earlier call")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, str(options.bundle), options.shots[0])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        bundle = options.bundle or Path(scratch)
        if not (bundle / "use").is_dir():
            make_bundle(bundle, options.scale)
        for shots in options.shots:
            again = [sys.executable, __file__, "--one", "--model", options.model, "--bundle", str(bundle)]
            subprocess.run(
                [*again, "--shots", str(shots)], check=True, env=os.environ | {"TOKENIZERS_PARALLELISM": "true"}
            )


if __name__ == "__main__":
    main()
