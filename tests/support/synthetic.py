"""Run records without models: what a board needs, with scores drawn from a seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darumeru.files import file_sha256, fingerprint, write_json, write_jsonl
from darumeru.record.run import FORMAT
from darumeru.scoring.aggregate import Aggregate, f1_macro, mean
from darumeru.scoring.estimate import Estimate, estimate_mean
from darumeru.scoring.summary import score_task, stated
from darumeru.task.suite import Group, Suite

GROUPS = {
    "darummlu": ("DaruMMLU", ["rummlu", "mmlu_ru", "mmlu_en"]),
    "darumera": ("DaruMERA", ["multiq", "parus", "rcb", "rwsd", "use", "ruopenbookqa", "ruworldtree", "rucola"]),
    "darusum": ("DaruSum", ["sum_abstractive", "sum_extractive"]),
    "darucopy_en": ("DaruCopy (EN)", ["cp_sent_en", "cp_para_en"]),
    "darucopy_ru": ("DaruCopy (RU)", ["cp_sent_ru", "cp_para_ru"]),
}
TASKS = [task for _, tasks in GROUPS.values() for task in tasks]
SUITE = Suite("darumeru", "Micro-Avg", tuple(Group(n, t, tuple(ts)) for n, (t, ts) in GROUPS.items()), "1.0")
GRADED = {"multiq", "sum_abstractive", "sum_extractive", "cp_sent_en", "cp_sent_ru"}

NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}javascript:alert(1)"


def make_run(
    folder: Path,
    name: str,
    skill: float = 0.5,
    seed: int = 0,
    documents: int = 20,
    tasks: list[str] | None = None,
    text: str | Sequence[str] = "Сколько будет дважды два?",
    resamples: int = 200,
    complete: bool = True,
    **header: Any,
) -> Path:
    """A run of `name` whose chance to be right on a document is its skill less the document's hardness.

    A document is as hard for every model, so that models' answers are correlated as real ones are. With `thinking` on in the
    header every answer has a thought of `text`, and that of every fifth document did not end. `text` may be one for
    each document.
    """
    from darumeru.record.sample import Sample, table_of

    chosen = tasks or TASKS
    budget = (header.get("thinking") or {}).get("budget")
    results: dict[str, Any] = {}
    estimates: dict[str, Estimate] = {}
    sums: dict[str, list[dict[str, Any]]] = {}
    for task in chosen:
        shared = np.random.default_rng(int(hashlib.sha256(task.encode()).hexdigest()[:8], 16))
        hard = shared.uniform(-0.4, 0.4, documents)
        gold = shared.integers(0, 4, documents)
        own = np.random.default_rng([seed, len(task), chosen.index(task)])
        values = np.clip(skill - hard + own.normal(0, 0.15, documents), 0, 1)
        right = (values > 0.5).astype(float)
        metrics: dict[str, Aggregate] = {"score": mean} if task in GRADED else {"acc": mean}
        if task in ("rcb", "ruopenbookqa"):
            metrics["f1_macro"] = f1_macro
        if task.startswith("cp_"):
            metrics["symbols_per_token"] = mean
        primary = tuple(m for m in metrics if m != "symbols_per_token")
        rows = []
        for i in range(documents):
            said = text if isinstance(text, str) else text[i]
            mark = float(values[i]) if task in GRADED else float(right[i])
            label = "ABCD"[gold[i]]
            choice = None if task in GRADED else label if right[i] else "ABCD"[(gold[i] + 1) % 4]
            score = dict.fromkeys(metrics, mark)
            if "symbols_per_token" in score:
                score["symbols_per_token"] = 2.5 + skill
            answer: dict[str, Any] = (
                {"text": f"{said} {i}", "tokens": [1, 2, 3], "finish": "stop"}
                if task in GRADED
                else {"logprobs": [-1.0, -2.0, -3.0, -4.0]}
            )
            if budget:
                answer |= {"thought": f"{said} {i}?", "thought_tokens": [1] * (budget // 2), "unfinished": i % 5 == 4}
            rows.append(
                {
                    "id": i, "doc": {}, "gold": label, "pred": choice, "score": score, "ties": 0, "cluster": None,
                    "stratum": None, "extra": {},
                    "requests": [
                        {"prompt": f"{said} {task} {i}", "prompt_tokens": 12, "num_fewshot": 0, "truncated": 0,
                         "reference_tokens": None, "answer": answer}
                    ],
                }
            )  # fmt: skip
        results[task], estimates[task] = score_task(
            table_of([Sample(**row) for row in rows]), metrics, primary, seed, resamples
        )
        results[task] |= {
            "ties": 0, "truncated_prompts": 0, "fewshot_used": 0.0, "empty_answers": 0, "cut_answers": 0,
            "requests": documents, "prompt_tokens": 12 * documents, "generated_tokens": 3 * documents, "seconds": 1.0,
        }  # fmt: skip
        if budget:
            finished = [Sample(**row) for row in rows if row["id"] % 5 != 4]
            scored, _ = score_task(table_of(finished), metrics, primary, seed, resamples)
            results[task] |= {
                "thought_tokens": budget // 2 * documents, "unfinished_thoughts": documents - len(finished),
                "rethought_answers": 0, "finished_documents": len(finished), "finished_score": scored["score"],
            }  # fmt: skip
        sums[task] = rows
    suite = SUITE.only(chosen)

    def mean_of_tasks(title: str, members: tuple[str, ...]) -> dict[str, Any]:
        return stated(estimate_mean([estimates[t] for t in members])) | {"title": title}

    head: dict[str, Any] = {
        "format": FORMAT,
        "model": {"name": name, "revision": None, "weights_sha256": "0" * 64, "tokenizer_sha256": "1" * 64,
                  "parameters": 7_000_000_000, "vocab_size": 32000, "model_type": "llama", "context_len": 4096,
                  "chat_template": None, "chat_template_sha256": None},
        "engine": {"name": "hf", "version": "transformers 5", "dtype": "float32", "device": "cpu", "model_args": {}},
        "mode": "instruct", "num_fewshot": 0, "seed": 0, "limit": None, "max_prompt_len": 4096,
        "generation": {"do_sample": False, "temperature": 0.0},
        "suite": {"name": "darumeru", "version": "1.0", "summary": suite.summary,
                  "groups": [{"name": g.name, "title": g.title, "tasks": list(g.tasks)} for g in suite.groups]},
        "tasks": {t: {"version": "1.0", "documents": documents, "of": documents, "wording": None,
                      "data": {"test": {"source": "bundle:full", "rows": documents, "sha256": fingerprint(t)}}}
                  for t in chosen},
    }  # fmt: skip
    head |= header
    head |= {"id": fingerprint([name, skill, seed, documents, chosen, header]), "started": "2026-01-01T00:00:00+00:00"}
    scores = {
        "suite": mean_of_tasks(suite.summary, suite.tasks),
        "groups": {g.name: mean_of_tasks(g.title, g.tasks) for g in suite.groups},
        "tasks": results, "failed": {}, "engine": {"dtype": "float32", "device": "cpu"}, "wall_seconds": 17.0,
        "finished": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "header.json", head)
    if not complete:
        return folder
    for task, rows in sums.items():
        write_jsonl(folder / "samples" / f"{task}.jsonl", rows)
    write_json(folder / "scores.json", scores)
    names = ["header.json", "scores.json", *(f"samples/{t}.jsonl" for t in chosen)]
    write_json(folder / "manifest.json", {"format": FORMAT, "complete": True,
                                          "files": {n: file_sha256(folder / n) for n in names}})  # fmt: skip
    return folder


def edited(path: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The run with another header.json or scores.json, and the manifest to it."""
    content = json.loads((path / name).read_text())
    change(content)
    (path / name).write_text(json.dumps(content))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = file_sha256(path / name)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def in_bits(path: Path, task: str) -> Path:
    """The run with 1 + value bits per byte for each document of a task, of which fewer are better."""
    file = path / "samples" / f"{task}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["score"] = {metric: 1 + value for metric, value in row["score"].items()}
    write_jsonl(file, rows)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][f"samples/{task}.jsonl"] = file_sha256(file)
    (path / "manifest.json").write_text(json.dumps(manifest))
    return edited(path, "scores.json", lambda scores: scores["tasks"][task].update(higher_is_better=False))
